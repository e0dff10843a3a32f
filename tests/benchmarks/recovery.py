"""What it costs that workers are killed: how much later the batch ends, and how many lines are sent twice."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.benchmarks import runs
from tests.benchmarks.components import role_or_none
from tests.benchmarks.runs import BenchmarkError
from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import psutil

    from tests.benchmarks.runs import Cell, Input

ANSWER_S = 10
FIRST_KILL, LAST_KILL = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class Shape:
    """What is run, and how often a worker is killed in it, by SIGKILL, between a fifth and half of the lines.

    The fleet's other times keep the proportions to `visibility_s` that they have by default.
    """

    lines: int
    cell: Cell
    workers: int
    kills: int
    visibility_s: float

    @property
    def kill_shares(self) -> list[float]:
        """The shares of the lines that are answered when a worker is killed."""
        step = (LAST_KILL - FIRST_KILL) / max(1, self.kills - 1)
        return [LAST_KILL - step * left for left in reversed(range(self.kills))]

    @property
    def env(self) -> dict[str, str]:
        """The fleet's settings."""
        shares = {"VISIBILITY_TIMEOUT": 1, "CLAIM": 1 / 2, "STALL": 1 / 2, "SWEEP_INTERVAL": 1 / 12}
        return {f"BATCHORD_{name}_S": str(share * self.visibility_s) for name, share in shares.items()}


@dataclass(frozen=True, slots=True)
class Kill:
    """When a worker was killed, and what the upstream had answered, and was answering, then."""

    at: float
    answered: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """A run with kills, and one without just before it."""

    shape: Shape
    undisturbed_s: float
    batch_s: float
    extra_s: float
    repeated: int
    kills: list[Kill]

    @property
    def extra_timeouts(self) -> float:
        """How much longer it took from the last kill to the end than it does undisturbed, in visibility timeouts."""
        return self.extra_s / self.shape.visibility_s


@dataclass(slots=True)
class _Killer:
    """Watches a run, and kills a worker each time that enough lines are answered."""

    shape: Shape
    counts_url: str
    random: random.Random
    kills: list[Kill] = field(default_factory=list)

    def __call__(self, _: float, tree: Sequence[psutil.Process]) -> None:
        workers = [process for process in tree[1:] if role_or_none(process, tree[0]) == "worker"]
        if len(self.kills) == self.shape.kills or not workers:
            return
        counts = self._counts()
        answered = counts["requests"] - counts["repeated"] - counts["in_flight"]
        if answered >= self.shape.kill_shares[len(self.kills)] * self.shape.lines:
            self.random.choice(workers).kill()
            self.kills.append(Kill(time.time(), answered, counts["in_flight"]))

    def _counts(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.counts_url, timeout=ANSWER_S) as answer:  # noqa: S310 (our own server)
            counts: dict[str, Any] = json.load(answer)
            return counts


def measure(shape: Shape, source: Input, folder: Path, seed: int) -> Recovery:
    """Run the source twice, in an empty folder: as it is, and with kills.

    Raises:
        BenchmarkError: a run failed, not every line was answered, or it ended before the last kill.
    """
    (folder / "undisturbed").mkdir()
    (folder / "killed").mkdir()
    undisturbed = runs.run("batchord", shape.cell, source, folder / "undisturbed", shape.workers, env=shape.env)
    killers: list[_Killer] = []

    def watch_from(base_url: str) -> _Killer:
        killers.append(_Killer(shape, base_url.replace("/v1", "/counts"), random.Random(seed)))
        return killers[0]

    run = runs.run("batchord", shape.cell, source, folder / "killed", shape.workers, watch_from, shape.env)
    kills = killers[0].kills
    if len(kills) < shape.kills:
        raise BenchmarkError(f"The run ended after {len(kills)} of {shape.kills} kills.")
    extra_s = later_s(undisturbed.batch_s, kills[-1], source.lines, run.ended_at)
    return Recovery(shape, undisturbed.batch_s, run.batch_s, extra_s, run.repeated, kills)


def later_s(undisturbed_s: float, last: Kill, lines: int, ended_at: float) -> float:
    """Give the seconds from the last kill to the end, less those that the lines left take without kills."""
    return ended_at - last.at - undisturbed_s * (1 - last.answered / lines)


def table(recoveries: Sequence[Recovery]) -> Table:
    """Show each round."""
    shape = recoveries[0].shape
    headings = (
        "round",
        "undisturbed s",
        "with kills s",
        "later s",
        "in visibility timeouts",
        "sent twice",
        "in flight",
    )
    rows = [
        (
            f"{number}",
            f"{each.undisturbed_s:.1f}",
            f"{each.batch_s:.1f}",
            f"{each.extra_s:.1f}",
            f"{each.extra_timeouts:.2f}",
            f"{each.repeated:,}",
            f"{sum(kill.in_flight for kill in each.kills):,}",
        )
        for number, each in enumerate(recoveries, 1)
    ]
    note = (
        f"{shape.kills} times kill -9 of one of {shape.workers} workers, {shape.lines:,} lines, "
        f"{1000 * shape.cell.latency_s:.0f} ms, {shape.cell.in_flight:,} in flight, visibility timeout "
        f"{shape.visibility_s:g} s; later: from the last kill to the end, beyond what the rest takes undisturbed; "
        "in flight: in the whole fleet at the kills, together"
    )
    return Table("recovery", "Killed workers", headings, rows, note)
