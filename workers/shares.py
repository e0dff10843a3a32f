"""This process' part of each limit, taken from and given back to the other workers while it runs.

The limit of a provider that states none is found here by the fleet, from what its workers measure.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.errors import UnavailableError
from batchord.state import concurrency, shares
from batchord.state.shares import Ask
from workers.adaptive import START, Course, advance
from workers.identity import is_dead
from workers.lanes import lanes

if TYPE_CHECKING:
    from batchord.routing import Provider
    from batchord.state.calls import Call
    from batchord.state.concurrency import Turn
    from workers.context import Context

_LOGGER = logging.getLogger(__name__)
_SOON_S: Final = 0.25
_INTERVAL_S: Final = 2.0
_LEARNING_S: Final = 0.3
"""Between two samples of a provider that has something to do, and between two looks at what they say."""


async def keep_shares(context: Context) -> None:
    """Take part in the sharing until cancelled. While Redis does not answer, the parts stay as they are."""
    while True:
        try:
            pause_s = await take_shares(context)
        except UnavailableError:
            pause_s = _INTERVAL_S  # the beat says in the log that Redis is away
        except Exception:  # a worker that stopped taking part would lose its permits to the others, or keep them all
            pause_s = _INTERVAL_S
            _LOGGER.exception("Taking a share failed; it is tried again.")
        await asyncio.sleep(pause_s)


async def take_shares(context: Context) -> float:
    """Take the parts once; give after how many seconds to do it again.

    That is soon while this process has too few yet, may still hold more than it should, or a limit is being learned.
    What it may hold until it hears the answer counts as held, so that a smaller part is others' from the next time on.
    A worker that drains wants none, and lets go of what it holds as its requests end.
    """
    is_learning = any(context.samples[provider.name].in_flight for provider in _unstated(context))
    limits = await _limits(context)
    wanted = dict.fromkeys(limits, 0) if context.draining.is_set() else limits
    asks = [Ask(lane, context.permits[lane].most_held, limit) for lane, limit in wanted.items()]
    call = shares.take(context.worker, asks, context.settings.claim_s, context.settings.fleet_size)
    parts = await context.state.run(call)
    for ask, part in zip(asks, parts, strict=True):
        context.resize(ask.lane, part.now)
    if any(part.now < part.due for part in parts):
        await _bury(context)
    if not all(ask.held <= part.now >= part.due for ask, part in zip(asks, parts, strict=True)):
        return _SOON_S
    return _LEARNING_S if is_learning else _INTERVAL_S


async def _limits(context: Context) -> dict[str, int]:
    """Give the fleet's limit of each lane: as stated, or as it is known by now."""
    limits: dict[str, int] = {}
    for provider in context.routes.every.values():
        limits |= lanes(provider)
    unstated = _unstated(context)
    calls = [_report(context, provider) for provider in unstated]
    for provider, (limit, turn) in zip(unstated, await context.state.run_all(calls), strict=True):
        known = limit if turn is None else await _find(context, provider, limit, turn)
        limits[provider.name] = min(known, provider.most_in_flight)
    return limits


def _unstated(context: Context) -> list[Provider]:
    return [provider for provider in context.routes.every.values() if provider.max_concurrency is None]


def _report(context: Context, provider: Provider) -> Call[concurrency.Reported]:
    sample = context.samples[provider.name].take()
    return concurrency.report(provider.name, sample, _LEARNING_S, START)


async def _find(context: Context, provider: Provider, limit: int, turn: Turn) -> int:
    """Find the provider's next limit; where another worker has done it meanwhile, that of before will do."""
    try:
        course = msgspec.json.decode(turn.course, type=Course) if turn.course else Course()
    except msgspec.MsgspecError:  # another version left it
        course = Course(limit=limit)
    course = advance(course, turn.sample, turn.at, provider.most_in_flight)
    call = concurrency.settle(provider.name, turn, course.limit, msgspec.json.encode(course))
    return course.limit if await context.state.run(call) else limit


async def _bury(context: Context) -> None:
    """Free the parts of this host's dead, so that who takes the place of a killed process need not wait for their end.

    Nobody else can know of a death before the time that a part counts is over.
    """
    held = await context.state.run(shares.holders())
    if dead := [holder for holder in held if is_dead(holder.rsplit(" ", 1)[1], context.worker)]:
        await context.state.run(shares.drop(dead))
