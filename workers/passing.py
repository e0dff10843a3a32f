"""How a line gets past the gate of a provider that may answer it: at once, in turn, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchord.errors import BatchordError
from workers.choice import enter, given_up
from workers.draining import Draining
from workers.gate import abandon

if TYPE_CHECKING:
    from batchord.routing import Ways
    from workers.context import Context
    from workers.gate import Passage
    from workers.line import LineUnderWay


class GivenUp(BatchordError):  # noqa: N818 (no fault, but an answer)
    """Nobody who may answer the line has answered anything for too long; the message says who and why."""


async def pass_gate(context: Context, line: LineUnderWay) -> Passage | None:
    """Wait for the right to send the line; None where it may not be sent any more.

    Raises:
        Draining: this worker ends, or has no part of the limits.
        GivenUp: the providers are given up.
    """
    if context.draining.is_set():
        raise Draining
    ways = line.ways(context.routes)
    first = ways.peers[0] if len(ways.peers) == 1 else None
    if first and context.gates[first.provider].is_plain(first.model):
        passage: Passage | None = await context.gates[first.provider].take(first.model, line.body)
    else:
        passage = await _wait_in_turn(context, line, ways)
    if passage is not None:
        await _look_again(context, line, passage)
        if line.may_be_sent and passage.is_open:
            return passage
        passage.leave()
    return None


async def _look_again(context: Context, line: LineUnderWay, passage: Passage) -> None:
    try:
        await line.ask_if_stale(context)
    except BaseException:
        passage.leave()
        raise


async def _wait_in_turn(context: Context, line: LineUnderWay, ways: Ways) -> Passage | None:
    """Wait, and look from time to time whether there still is a reason to."""
    entering = context.entering(enter(context.gates, ways, line.body))
    passage: Passage | None = None
    try:
        while True:
            if reason := given_up(context.gates, ways):
                raise GivenUp(reason)
            if await line.waits_for(context, entering):
                break
            if not line.may_be_sent:
                return None
        if entering.cancelled():
            raise Draining
        passage = entering.result()
        return passage
    finally:
        if passage is None:
            abandon(entering)
