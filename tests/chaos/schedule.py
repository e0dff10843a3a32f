"""When and whom a fault strikes: all of it follows from one seed. Not for what a fault does.

A moment is a number of requests that the upstream has seen, not a time: so the same seed strikes at the same points of
a batch, however fast the machine is.
"""

from __future__ import annotations

import os
import random
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from tests.acceptance.cli import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG: Final = os.environ.get("BATCHORD_CHAOS") == "long"
"""`make chaos` sets it; otherwise every scenario is short, since it is one test of a thousand."""
long_only: Final = pytest.mark.skipif(not LONG, reason="make chaos")
"""For a scenario whose short form would tell nothing that others do not."""
_SEED_VARIABLE: Final = "BATCHORD_CHAOS_SEED"
_SHORT_SEED: Final = 5
_LONG_SEEDS: Final = 3

T = TypeVar("T")


def seeds() -> list[int]:
    """Give the seeds of this run: the one asked for; or one that is always the same; or, in a long run, new ones."""
    if asked := os.environ.get(_SEED_VARIABLE):
        return [int(asked)]
    return [int(time.time()) % 1_000_000 + n for n in range(_LONG_SEEDS)] if LONG else [_SHORT_SEED]


def sized(short: T, long: T) -> T:
    """Give what a scenario has in a short or in a long run."""
    return long if LONG else short


class Schedule:
    """The choices of one scenario under one seed, in the order in which they are asked for."""

    def __init__(self, scenario: str, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(f"{scenario}/{seed}")
        say(f"{scenario}: repeat it with {_SEED_VARIABLE}={seed}")

    def moments(self, count: int, lines: int) -> list[int]:
        """Give moments of a batch in order, one in each of so many equal stretches of it; none near its end."""
        edges = [round(lines * (0.03 + 0.87 * n / count)) for n in range(count + 1)]
        return [self._random.randrange(low, high) for low, high in pairwise(edges)]

    def pick(self, among: Sequence[T]) -> T:
        return self._random.choice(among)

    def between(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


def say(text: str) -> None:
    """Tell whoever watches; pytest shows it with a failure, or always with -s."""
    sys.stdout.write(f"[chaos] {text}\n")
    sys.stdout.flush()


def last(seconds: float) -> None:
    """Let a fault last."""
    over = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > over, "the fault has lasted")
