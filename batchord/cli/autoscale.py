"""How many worker processes there shall be: the rule, a function of values, and the thin loop that obeys it.

A process more helps only where the ones that run are at the end of their cores: one process holds thousands of requests
that wait for a slow provider, and more of them would only wait with it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batchord.broker import provider_queue
from batchord.cores import cpu_s
from batchord.errors import UnavailableError
from batchord.state import queues
from batchord.state.connection import BlockingState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchord.processes import Fleet

_LOGGER = logging.getLogger(__name__)
LOOK_S: Final = 1.0
BUSY: Final = 0.8
"""Of a core, what a process uses that can hardly do more."""
SPARE: Final = 0.5
"""Of a core, what each of the others would use at most, were there one process less."""
BUSY_LOOKS: Final = 3
SPARE_LOOKS: Final = 60


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many processes there may be."""

    most: int
    least: int = 1


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen: the processes that there were, and the cores that they kept busy together since the last look."""

    processes: int
    busy_cores: float


def wanted(looks: Sequence[Look], bounds: Bounds) -> int:
    """Give how many processes there shall be, by the latest looks, the last one last.

    One more after some looks at busy ones, one less after many looks at which the others could have done it all. Only
    looks at the same number of processes count, so that each change is given its time to show.
    """
    now = looks[-1].processes
    if now < bounds.most and _all(looks, BUSY_LOOKS, now, least=BUSY * now):
        return now + 1
    if now > bounds.least and _all(looks, SPARE_LOOKS, now, most=SPARE * (now - 1)):
        return now - 1
    return now


def _all(looks: Sequence[Look], count: int, processes: int, *, least: float = 0.0, most: float = float("inf")) -> bool:
    latest = list(looks)[-count:]
    return len(latest) == count and all(
        look.processes == processes and least <= look.busy_cores <= most for look in latest
    )


class Autoscaler:
    """Keeps the size of a fleet of workers by its load: `look` is called a few times a second."""

    def __init__(self, fleet: Fleet, bounds: Bounds, redis_url: str, providers: Iterable[str]) -> None:
        self._fleet = fleet
        self._bounds = bounds
        self._state = BlockingState(redis_url)
        self._lengths = [queues.length(provider_queue(provider)) for provider in providers]
        self._looks: deque[Look] = deque(maxlen=SPARE_LOOKS)
        self._used_s: dict[int, float] = {}
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Look, once in `LOOK_S`, and start or drain a process if that is due."""
        passed_s = time.monotonic() - self._looked_at
        if passed_s < LOOK_S:
            return
        self._looked_at += passed_s
        before, self._used_s = self._used_s, {pid: cpu_s(pid) for pid in self._fleet.staying}
        used_s = sum(used_s - before.get(pid, used_s) for pid, used_s in self._used_s.items())
        self._looks.append(Look(len(self._used_s), used_s / passed_s))
        target = wanted(self._looks, self._bounds)
        if target < len(self._used_s):
            _LOGGER.info("%d worker processes are more than the load needs: one drains.", len(self._used_s))
            self._fleet.shrink()
        elif target > len(self._used_s) and self._lines_wait():
            _LOGGER.info("%d worker processes are busy while lines wait: one more is started.", len(self._used_s))
            self._grow()

    def _grow(self) -> None:
        try:
            self._fleet.grow()
        except OSError as error:  # no memory, say: no reason to end those that there are
            _LOGGER.warning("One more worker process could not be started: %s", error)

    def close(self) -> None:
        """Close the connection to Redis."""
        self._state.close()

    def _lines_wait(self) -> bool:
        """Whether there is more to do; asked only once the processes are busy, so that an idle fleet asks nothing."""
        try:
            return any(self._state.run_all(self._lengths))
        except UnavailableError:
            return False
