"""What a process has to tell Redis of one provider: in order, and much of it by few calls. Not what follows from it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LOGGER = logging.getLogger(__name__)
_GATHER_S: Final = 0.02
"""How far apart two calls are at least: what happens meanwhile is told by one."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Failures in a row, `count` of which speak against the server; the last one was sent at `sent_at` (monotonic)."""

    sent_at: float
    count: int
    reason: str
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """A good answer to a request that was sent at `sent_at` (monotonic)."""

    sent_at: float
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Paused:
    """A wish to be left alone until then (monotonic), or by backoff (None); `is_well` if the provider did not fail."""

    sent_at: float
    until: float | None
    reason: str
    is_well: bool


class Probe(Enum):
    """What is wanted of the right to send the probe."""

    TAKE = 1
    KEEP = 2
    LET_GO = 3


Event: TypeAlias = Failed | Answered | Paused | Probe


class News:
    """Tells events in the background by `tell_redis`, again and again while Redis is away; for one event loop."""

    def __init__(self, tell_redis: Callable[[Event], Awaitable[None]]) -> None:
        self._tell_redis = tell_redis
        self._untold: dict[type[Event], Event] = {}
        self._teller: asyncio.Task[None] | None = None
        self._is_closed = False

    def tell(self, event: Event) -> None:
        """Tell an event soon; with one of its kind that is not told yet, as one."""
        if self._is_closed:
            return
        former = self._untold.pop(type(event), None)
        self._untold[type(event)] = joined(former, event) if former else event
        if isinstance(event, Answered):
            self._forget_failures()
        if self._teller is None:
            self._teller = asyncio.create_task(self._tell_all())

    def _forget_failures(self) -> None:
        """Leave out failures that an answer has followed: they were not in a row. What a probe found out is told."""
        failed = self._untold.get(Failed)
        if isinstance(failed, Failed) and not failed.is_probe:
            del self._untold[Failed]

    async def _tell_all(self) -> None:
        while self._untold:
            event = self._untold.pop(next(iter(self._untold)))
            try:
                await patiently(lambda event=event: self._tell_redis(event))  # type: ignore[misc]  # a default is bound
            except Exception:  # what comes after is to be told all the same
                _LOGGER.exception("A provider's condition could not be told.")
            await asyncio.sleep(_GATHER_S)
        self._teller = None

    def close(self) -> None:
        """Tell no more."""
        self._is_closed = True
        if self._teller is not None:
            self._teller.cancel()


def joined(former: Event, event: Event) -> Event:
    """Give two events of a kind as one."""
    match former, event:
        case Failed(), Failed():
            is_probe = former.is_probe or event.is_probe
            return Failed(max(former.sent_at, event.sent_at), former.count + event.count, event.reason, is_probe)
        case Answered(), Answered():
            return Answered(max(former.sent_at, event.sent_at), former.is_probe or event.is_probe)
        case Paused(), Paused():
            until = max((each.until for each in (former, event) if each.until is not None), default=None)
            is_well = former.is_well or event.is_well
            return Paused(max(former.sent_at, event.sent_at), until, event.reason, is_well)
    return event
