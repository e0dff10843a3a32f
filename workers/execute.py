"""The step of one line: claim it, send it, retry by policy, record. Whatever happens becomes the line's outcome."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec

from batchord.contract import CANCELLED_MESSAGE, EXPIRED_MESSAGE, NO_USAGE, Answer, LineError
from batchord.errors import BatchordError, BlobNotFoundError
from batchord.lifecycle import Outcome
from batchord.prices import cost_of
from batchord.shard_file import Attempt, PlannedLine, Trace, encode_outcome
from batchord.state import shards
from batchord.state.shards import Answered, LineRecord, Verdict
from batchord.storage import paths
from batchord.validation import model_of
from workers.patience import patiently
from workers.permits import Draining
from workers.providers import ProviderError, Request, Response
from workers.quarantine import LineDied
from workers.retry import Policy, Retry, decide

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from workers.context import Context
    from workers.retry import Decision

_LOGGER = logging.getLogger(__name__)
_RANDOM = random.Random()  # noqa: S311 (it spreads retries; SystemRandom costs a system call a line)

_policy = cache(Policy)
_TO_SEND: Final = (Verdict.SEND, Verdict.SUSPECT)
_UNSENT: Final = {
    Verdict.CANCELLED: (Outcome.CANCELLED, LineError("batch_cancelled", CANCELLED_MESSAGE)),
    Verdict.EXPIRED: (Outcome.EXPIRED, LineError("batch_expired", EXPIRED_MESSAGE)),
    Verdict.POISONED: (
        Outcome.FAILED,
        LineError("worker_died", "Worker after worker died while it sent this request, so it is not sent again."),
    ),
}
_DIED: Final = LineError(
    "worker_died", "Workers died while they sent this request, and so did a process that sent nothing else."
)
_LOST: Final = LineError("input_lost", "The storage has lost this line before it was sent.")


class DuplicateLine(BatchordError):  # noqa: N818 (no fault, but an answer)
    """Another message of the same line is under way."""


@dataclass(slots=True)
class _Settled:
    """What became of a line; `response` is None where no answer came."""

    outcome: Outcome
    result: Answer | LineError
    response: Response | None = None


@dataclass(slots=True)
class _Line:
    """A line under way: where it stands, what is sent, what was tried so far, and the verdict as of `asked_at`."""

    shard: Shard
    index: int
    endpoint: str
    planned: PlannedLine
    verdict: Verdict
    asked_at: float
    attempts: list[Attempt] = field(default_factory=list)
    began_at: float = field(default_factory=time.monotonic)

    async def ask(self, context: Context) -> None:
        """Ask once more whether to send the line."""
        self.asked_at = time.monotonic()
        self.verdict = await _ask(context, self.shard, self.index)

    async def ask_if_stale(self, context: Context) -> None:
        """Ask once more if the verdict is old: the batch may be stopped, and a worker that was may be thought dead."""
        if time.monotonic() - self.asked_at > context.desk.verdict_life_s:
            await self.ask(context)


async def execute(context: Context, shard: Shard, index: int) -> None:
    """Bring one line to its outcome, unless it has one or is being sent.

    Raises:
        DuplicateLine: another message of this line is under way, here or in another living worker.
        Draining: the worker ends, and the line has not been sent or waits for its next attempt.
    """
    desk, asked_at = context.desk, time.monotonic()
    if desk.is_sending(shard, index):
        raise DuplicateLine
    try:
        verdict = await _ask(context, shard, index)
        if verdict is Verdict.CLAIMED:
            raise DuplicateLine
        if verdict is not Verdict.RECORDED:
            await _bring_to_record(context, await _line(context, shard, index, verdict, asked_at))
    except Draining:
        await desk.release(shard, index)
        raise
    except asyncio.CancelledError:
        desk.release(shard, index)
        raise
    finally:
        desk.end(shard, index)


async def _ask(context: Context, shard: Shard, index: int) -> Verdict:
    """Ask whether to send a line; waits until it is clear whether a silent worker that claimed it is dead."""
    while (verdict := await context.desk.begin(shard, index)) is Verdict.UNSURE:
        await _pause(context, context.desk.doubt_s)
    return verdict


async def _bring_to_record(context: Context, line: _Line) -> None:
    shard = line.shard
    try:
        settled = await _settle(context, line)
        record = await _record(context, line, settled) if settled else None
    except (Draining, DuplicateLine):
        raise
    except Exception as error:  # a fault of ours must not leave a line without an outcome, nor send it for ever
        _LOGGER.exception("Line %s of %s failed by a fault of batchord.", line.planned.line, shard.batch_id)
        fault = LineError("internal_error", f"batchord failed: {type(error).__name__}")
        record = await _record(context, line, _Settled(Outcome.FAILED, fault))
    if record is not None:
        await context.desk.record(shard, record)
        if record.is_large:
            await _drop_if_late(context, shard, record)


async def _line(context: Context, shard: Shard, index: int, verdict: Verdict, asked_at: float) -> _Line:
    """Give the line as it was planned; a stand-in where the storage has lost it, so that its batch can end."""
    try:
        planned = await context.inputs.get(shard)
        return _Line(shard, index, planned.endpoint, planned.line(index), verdict, asked_at)
    except (BlobNotFoundError, IndexError, msgspec.MsgspecError):
        _LOGGER.exception("The planned lines of shard %s are lost.", shard.gid)
        return _Line(shard, index, "", PlannedLine(0, "", msgspec.Raw(b"")), verdict, asked_at)


async def _drop_if_late(context: Context, shard: Shard, record: LineRecord) -> None:
    """Delete a large record that was not the line's first: nobody will ever read it."""
    (kept,) = await patiently(lambda: context.state.run(shards.outcomes(shard, [record.index])))
    if kept is None or kept[1:] != record.content:
        await patiently(lambda: context.blobs.delete([record.content[1:].decode()]))


async def _settle(context: Context, line: _Line) -> _Settled | None:
    """Send until the retry policy is content; None where the line got its outcome from elsewhere meanwhile."""
    if line.verdict in _TO_SEND and not line.endpoint:
        return _Settled(Outcome.FAILED, _LOST)
    while line.verdict in _TO_SEND:
        async with context.permits[line.shard.provider]:
            await line.ask_if_stale(context)
            if line.verdict not in _TO_SEND:
                break
            result = await _send(context, line)
        if isinstance(result, LineDied):
            return _Settled(Outcome.FAILED, _DIED)
        decision = _judge(context, line, result)
        if not isinstance(decision, Retry):
            return _conclude(result, len(line.attempts))
        line.attempts[-1] = msgspec.structs.replace(line.attempts[-1], wait_s=round(decision.after_s, 3))
        await _pause(context, decision.after_s)
        await line.ask(context)
    if line.verdict is Verdict.CLAIMED:
        raise DuplicateLine
    return _Settled(*_UNSENT[line.verdict]) if line.verdict in _UNSENT else None


def _judge(context: Context, line: _Line, result: Response | ProviderError) -> Decision:
    max_attempts = context.routes.providers[line.shard.provider].max_attempts
    elapsed_s = time.monotonic() - line.began_at
    return decide(_policy(max_attempts), len(line.attempts), result, random=_RANDOM.random(), elapsed_s=elapsed_s)


async def _send(context: Context, line: _Line) -> Response | ProviderError | LineDied:
    """Send once: here, or alone in a process of its own if workers died while they sent this line."""
    request = Request(
        endpoint=line.endpoint,
        body=bytes(line.planned.body),
        custom_id=line.planned.custom_id,
        attempt=len(line.attempts) + 1,
        idempotency_key=_idempotency_key(line),
    )
    sent_at = time.monotonic()
    try:
        result: Response | ProviderError | LineDied
        if line.verdict is Verdict.SUSPECT:
            result = await context.quarantine.send(line.shard.provider, request)
        else:
            result = await context.providers[line.shard.provider].send(request)
    except (ProviderError, LineDied) as error:
        result = error
    latency_ms = round((time.monotonic() - sent_at) * 1000, 1)
    if isinstance(result, Response):
        line.attempts.append(Attempt(result.status_code, latency_ms, round(result.ttfb_ms, 1)))
    else:
        code = result.code if isinstance(result, ProviderError) else _DIED.code
        line.attempts.append(Attempt(code, latency_ms))
    return result


def _idempotency_key(line: _Line) -> str:
    """Give the same key to each try of a round; a retry wants another answer than the one before."""
    key = f"{line.shard.batch_id}-{line.planned.line}"
    return f"{key}-{line.shard.round}" if line.shard.round else key


def _conclude(result: Response | ProviderError, attempts: int) -> _Settled:
    if isinstance(result, ProviderError):
        tries = "" if attempts == 1 else f" ({attempts} attempts)"
        return _Settled(Outcome.FAILED, LineError(result.code, f"{result.message}{tries}"))
    answer = Answer(result.status_code, result.request_id, msgspec.Raw(result.body))
    outcome = Outcome.SUCCEEDED if result.is_success else Outcome.FAILED
    return _Settled(outcome, answer, result)


async def _record(context: Context, line: _Line, settled: _Settled) -> LineRecord:
    """Give the record; what is too large for Redis waits in storage for the seal."""
    trace = Trace(line.shard.provider, line.attempts)
    content = encode_outcome(line.shard.batch_id, line.planned, settled.result, trace)
    if len(content) > context.settings.spill_bytes:
        path = paths.large_record(line.shard, line.index, uuid4().hex)
        await patiently(lambda: context.blobs.put(path, content))
        content = b"@" + path.encode()
    model, retries = model_of(line.planned.body), max(0, len(line.attempts) - 1)
    if settled.response is None:
        return LineRecord(line.index, settled.outcome, content, retries, NO_USAGE, model)
    answered = _answered(context, line.shard.provider, model, settled.response)
    return LineRecord(line.index, settled.outcome, content, retries, settled.response.usage, model, answered)


def _answered(context: Context, provider: str, model: str, response: Response) -> Answered:
    price = context.prices.of(provider, model, time.time())
    cost = cost_of(price, response.usage, succeeded=response.is_success)
    return Answered(cost, response.latency_ms, response.ttfb_ms)


async def _pause(context: Context, seconds: float) -> None:
    """Wait before the next attempt; a worker that drains hands the line back instead."""
    with suppress(TimeoutError):
        await asyncio.wait_for(context.draining.wait(), seconds)
        raise Draining
