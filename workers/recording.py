"""How what became of a line is written down: its outcome as a record, with what it cost. Not what became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from batchord.contract import NO_USAGE, Answer, LineError
from batchord.lifecycle import Outcome
from batchord.prices import cost_of, in_dollars
from batchord.shard_file import Trace, encode_outcome
from batchord.state import shards
from batchord.state.shards import Answered, LineRecord
from batchord.storage import paths
from workers.line import Settled
from workers.patience import patiently
from workers.providers import ProviderError, Response

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from workers.context import Context
    from workers.line import LineUnderWay


def settled_by(result: Response | ProviderError, attempts: int, provider: str) -> Settled:
    """Give the outcome that a result makes, where it stands."""
    if isinstance(result, ProviderError):
        tries = "" if attempts == 1 else f" ({attempts} attempts)"
        return Settled(Outcome.FAILED, LineError(result.code, f"{result.message}{tries}"))
    answer = Answer(result.status_code, result.request_id, provider, msgspec.Raw(result.body))
    outcome = Outcome.SUCCEEDED if result.is_success else Outcome.FAILED
    return Settled(outcome, answer, result)


async def record_of(context: Context, line: LineUnderWay, settled: Settled) -> LineRecord:
    """Give the record; what is too large for Redis waits in storage for the seal."""
    trace = line.trace if settled.copy_of is None else Trace(line.provider, copy_of=settled.copy_of)
    answered = _answered(context, line, settled.response) if settled.response else None
    content = encode_outcome(line.shard.batch_id, line.planned, _priced(settled, answered), trace)
    if len(content) > context.settings.spill_bytes:
        path = paths.large_record(line.shard, line.index, uuid4().hex)
        await patiently(lambda: context.blobs.put(path, content))
        content = b"@" + path.encode()
    return LineRecord(
        line.index,
        settled.outcome,
        content,
        retries=max(0, line.sent - 1),
        usage=settled.response.usage if settled.response else NO_USAGE,
        model=line.model,
        answered=answered,
        is_copy=settled.copy_of is not None,
        provider=line.helper or "",
    )


def _priced(settled: Settled, answered: Answered | None) -> Answer | LineError:
    """Give the result with what it cost: a copy nothing."""
    if isinstance(settled.result, LineError):
        return settled.result
    return msgspec.structs.replace(settled.result, cost=in_dollars(answered.cost_nanos if answered else 0))


def _answered(context: Context, line: LineUnderWay, response: Response) -> Answered:
    price = context.prices.of(line.provider, line.asked_model, time.time())
    cost = cost_of(price, response.usage, succeeded=response.is_success)
    return Answered(cost, response.latency_ms, response.ttfb_ms)


async def record(context: Context, shard: Shard, record: LineRecord) -> None:
    """Hand a record in, once Redis has it."""
    await context.desk.record(shard, record)
    if record.is_large:
        await _drop_if_late(context, shard, record)


async def _drop_if_late(context: Context, shard: Shard, record: LineRecord) -> None:
    """Delete a large record that was not the line's first: nobody will ever read it."""
    (kept,) = await patiently(lambda: context.state.run(shards.outcomes(shard, [record.index])))
    if kept is None or kept[1:] != record.content:
        await patiently(lambda: context.blobs.delete([record.content[1:].decode()]))
