"""Which of the providers that may answer a line takes it: a peer by weight and speed, a fallback where no peer can."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from workers.draining import Draining
from workers.gate import abandon

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchord.routing import Way, Ways
    from workers.gate import Gate, Passage

_SHORT_S: Final = 2.0
"""A provider that takes nothing for longer than this is out for now: a fallback is asked instead."""
_LOOK_AGAIN_S: Final = 1.0


async def enter(gates: Mapping[str, Gate], ways: Ways, body: bytes) -> Passage:
    """Give a passage to one of the providers as soon as there is one; safe to cancel.

    Raises:
        Draining: this worker ends, or has no part of the limits.
    """
    if len(ways.peers) == 1 and not ways.fallbacks:
        (way,) = ways.peers
        return await gates[way.provider].enter(way.model, body)
    while True:
        usable = usable_ways(gates, ways)
        for way in usable:
            if passage := gates[way.provider].try_enter(way.model, body):
                return passage
        if passage := await _first(gates, usable, body):
            return passage


def usable_ways(gates: Mapping[str, Gate], ways: Ways) -> Sequence[Way]:
    """Give who may be asked now, the best first: the least busy peer for its weight, or the fallbacks in their order.

    Where all are out, that is all of them, as the peers may be back first.
    """
    in_reach = [way for way in ways.peers if _is_in_reach(gates[way.provider])]
    if in_reach:
        return sorted(in_reach, key=lambda way: _load(gates[way.provider]))
    return [way for way in ways.fallbacks if _is_in_reach(gates[way.provider])] or [*ways.peers, *ways.fallbacks]


def given_up(gates: Mapping[str, Gate], ways: Ways) -> str | None:
    """Give why nobody will answer the line, or None while somebody may."""
    reasons = [gates[way.provider].condition.given_up for way in (*ways.peers, *ways.fallbacks)]
    return " ".join(reason for reason in reasons if reason) if all(reasons) else None


def _is_in_reach(gate: Gate) -> bool:
    return gate.condition.unavailable_s <= _SHORT_S


def _load(gate: Gate) -> float:
    return (gate.held + 1) / (gate.provider.weight or 1)


async def _first(gates: Mapping[str, Gate], ways: Iterable[Way], body: bytes) -> Passage | None:
    """Give the first passage there is to any of them; None after a while, so that others may be looked at."""
    entering = {asyncio.create_task(gates[way.provider].enter(way.model, body)) for way in ways}
    chosen: asyncio.Task[Passage] | None = None
    try:
        chosen = await _first_done(entering)
        return chosen.result() if chosen else None
    finally:
        for task in entering - {chosen}:
            abandon(task)


async def _first_done(entering: set[asyncio.Task[Passage]]) -> asyncio.Task[Passage] | None:
    waiting = entering
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=_LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        for task in done:
            if not isinstance(task.exception(), Draining):
                return task
    raise Draining
