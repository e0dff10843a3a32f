"""The step of one line: claim it, send it, retry by policy, record. Whatever happens becomes the line's outcome."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.contract import CANCELLED_MESSAGE, EXPIRED_MESSAGE, MAX_COST_MESSAGE, LineError
from batchord.errors import BatchordError, BlobNotFoundError
from batchord.lifecycle import Outcome
from batchord.shard_file import PlannedLine
from batchord.state.shards import Verdict
from workers import copies, recording
from workers.draining import Draining, pause
from workers.line import LineUnderWay, Settled
from workers.passing import GivenUp, pass_gate
from workers.quarantine import LineDied
from workers.retry import GiveUp, Policy, Retry, Unable, Wait, decide
from workers.sending import send

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from workers.context import Context
    from workers.gate import Passage
    from workers.providers import ProviderError, Response

_LOGGER = logging.getLogger(__name__)
_RANDOM = random.Random()  # noqa: S311 (it spreads retries; SystemRandom costs a system call a line)
_BREATH_S: Final = 0.25
"""The longest pause after a refusal by a provider that takes requests again at once."""

_policy = cache(Policy)
_UNSENT: Final = {
    Verdict.CANCELLED: (Outcome.CANCELLED, LineError("batch_cancelled", CANCELLED_MESSAGE)),
    Verdict.EXPIRED: (Outcome.EXPIRED, LineError("batch_expired", EXPIRED_MESSAGE)),
    Verdict.POISONED: (
        Outcome.FAILED,
        LineError("worker_died", "Worker after worker died while it sent this request, so it is not sent again."),
    ),
    Verdict.OVER_BUDGET: (Outcome.FAILED, LineError("max_cost_reached", MAX_COST_MESSAGE)),
}
_DIED: Final = LineError(
    "worker_died", "Workers died while they sent this request, and so did a process that sent nothing else."
)
_LOST: Final = LineError("input_lost", "The storage has lost this line before it was sent.")


class DuplicateLine(BatchordError):  # noqa: N818 (no fault, but an answer)
    """Another message of the same line is under way."""


async def execute(context: Context, shard: Shard, index: int) -> None:
    """Bring one line to its outcome, unless it has one or is being sent.

    Raises:
        DuplicateLine: another message of this line is under way, here or in another living worker.
        Draining: the worker ends, and the line has not been sent or waits for its next attempt.
    """
    desk = context.desk
    if desk.is_sending(shard, index):
        raise DuplicateLine
    line = LineUnderWay(shard, index)
    try:
        await line.ask(context)
        if line.verdict is Verdict.CLAIMED:
            raise DuplicateLine
        if line.verdict is not Verdict.RECORDED:
            await _read(context, line)
            await _bring_to_record(context, line)
    except Draining:
        await desk.release(shard, index)
        raise
    except asyncio.CancelledError:
        desk.release(shard, index)
        raise
    finally:
        desk.end(shard, index)


async def _read(context: Context, line: LineUnderWay) -> None:
    """Read the line as it was planned; a stand-in where the storage has lost it, so that its batch can end."""
    try:
        planned = await context.inputs.get(line.shard)
        line.take(planned.endpoint, planned.line(line.index))
    except (BlobNotFoundError, IndexError, msgspec.MsgspecError):
        _LOGGER.exception("The planned lines of shard %s are lost.", line.shard.gid)
        line.take("", PlannedLine(0, "", msgspec.Raw(b"")))


async def _bring_to_record(context: Context, line: LineUnderWay) -> None:
    try:
        settled = await _settle(context, line)
        record = await recording.record_of(context, line, settled) if settled else None
    except (Draining, DuplicateLine):
        raise
    except Exception as error:  # a fault of ours must not leave a line without an outcome, nor send it for ever
        _LOGGER.exception("Line %s of %s failed by a fault of batchord.", line.planned.line, line.shard.batch_id)
        fault = LineError("internal_error", f"batchord failed: {type(error).__name__}")
        record = await recording.record_of(context, line, Settled(Outcome.FAILED, fault))
    if record is not None:
        await recording.record(context, line.shard, record)


async def _settle(context: Context, line: LineUnderWay) -> Settled | None:
    """Send until the retry policy is content; None where the line got its outcome from elsewhere meanwhile."""
    if line.may_be_sent and not line.endpoint:
        return Settled(Outcome.FAILED, _LOST)
    settled = await copies.answer(context, line)
    while settled is None and line.may_be_sent:
        settled = await _try(context, line)
    if settled is not None:
        return settled
    if line.verdict is Verdict.CLAIMED:
        raise DuplicateLine
    return Settled(*_UNSENT[line.verdict]) if line.verdict in _UNSENT else None


async def _try(context: Context, line: LineUnderWay) -> Settled | None:
    """Send once, as soon as a provider takes the line; None where that settled nothing."""
    try:
        passage = await pass_gate(context, line)
    except GivenUp as given_up:
        return Settled(Outcome.FAILED, LineError("provider_unavailable", str(given_up)))
    if passage is None:
        return None
    result = await send(context, line, passage)
    if isinstance(result, LineDied):
        return Settled(Outcome.FAILED, _DIED)
    return await _go_on(context, line, passage, result)


async def _go_on(
    context: Context, line: LineUnderWay, passage: Passage, result: Response | ProviderError
) -> Settled | None:
    """Do what the retry policy says of a result; None where the line is to be sent again."""
    config = context.routes.every[passage.provider]
    policy = _policy(config.max_attempts, config.max_line_s)
    decision = decide(policy, line.tries, result, random=_RANDOM.random(), elapsed_s=line.spent_s)
    match decision:
        case Wait():
            line.not_taken()
            if passage.is_open:
                await pause(context.draining, _RANDOM.uniform(0, _BREATH_S))
        case Retry(after_s):
            line.will_wait(after_s)
            await pause(context.draining, after_s)
            await line.ask(context)
        case GiveUp() | Unable() if line.has_other_way(context.routes, passage.provider):
            line.turn_from(passage.provider)
        case _:
            return recording.settled_by(result, line.sent, passage.provider)
    return None
