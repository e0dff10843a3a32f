"""The step that finishes what a lost message, a dead worker or a lost chord left behind, and lets expired files go.

Some worker sends it every few seconds, under a lease; nothing waits on it unless something went wrong.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from batchord.broker import Step, provider_queue
from batchord.lifecycle import Status
from batchord.service.files import expire_files
from batchord.service.removal import remove_batch
from batchord.service.uploads import expire_uploads
from batchord.state import batches, keys, queues, retired, shards
from batchord.state.keys import Shard
from workers.feed import end_if_done, fill_window, is_running, line_up
from workers.finalize import finalize
from workers.lease import alone
from workers.mend import mend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from batchord.state.batches import BatchRecord
    from workers.context import Context

_LOGGER = logging.getLogger(__name__)
_REMOVED_AT_ONCE: Final = 100
_PATIENCE: Final = 20
"""How many stalls an open shard may wait while its queue holds messages, which may be its own."""


async def sweep(context: Context) -> None:
    """Look at every batch that has not ended, and at the files, uploads and ended batches whose time is over.

    What fails for one batch stops no other; the next sweep tries again.
    """
    async with alone(context, keys.SWEEPING_LEASE) as lease:
        if lease is None:
            return
        active = await context.state.run(batches.active())
        records = await context.state.run_all([batches.read(batch_id) for batch_id, _ in active])
        open_lines = _open_lines(records)
        for (batch_id, since), record in zip(active, records, strict=True):
            await lease.keep()
            look = _look_at(context, record, open_lines) if record else _forget(context, batch_id, since)
            await _unhindered(f"batch {batch_id}", look)
        for provider in open_lines:
            await _unhindered(f"the window of {provider}", fill_window(context, provider))
        await _unhindered("expired files", expire_files(context.state, context.blobs, time.time()))
        await _unhindered("expired uploads", expire_uploads(context.state, context.blobs, time.time()))
        await _remove_retired(context)


def _open_lines(records: Sequence[BatchRecord | None]) -> Counter[str]:
    """Give the open lines of each provider in all batches: as many messages may wait there, and none be lost."""
    lines: Counter[str] = Counter()
    for record in records:
        if record is not None:
            lines.update({provider: counts.open_lines for provider, counts in record.shards.items()})
    return lines


async def _unhindered(what: str, work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        _LOGGER.exception("The sweep failed at %s; the next one tries again.", what)


async def _look_at(context: Context, record: BatchRecord, open_lines: Counter[str]) -> None:
    if record.batch.status.is_terminal:
        await finalize(context, record.batch.id)
    else:
        await _move_on(context, record, open_lines)


async def _forget(context: Context, batch_id: str, since: float) -> None:
    """Take a batch off the list whose creation was never completed, or whose hash is gone."""
    if time.time() - since > context.settings.stall_s:
        await context.state.run(batches.deactivate(batch_id, since))


async def _move_on(context: Context, record: BatchRecord, open_lines: Counter[str]) -> None:
    if record.batch.status is Status.VALIDATING:
        if time.time() - record.batch.created_at > context.settings.stall_s:
            await context.send(Step.PLAN, record.batch.id)
        return
    for provider in record.shards:
        if provider not in context.routes.every:
            _LOGGER.warning("Batch %s needs the provider %s, which is not configured.", record.batch.id, provider)
        await _mend_stalled(context, record, provider, open_lines[provider])
    await line_up(context, record)
    await end_if_done(context, record)


async def _mend_stalled(context: Context, record: BatchRecord, provider: str, open_lines: int) -> None:
    batch_id = record.batch.id
    open_shards = await context.state.run(shards.open_numbers(batch_id, provider))
    stall_s = await _stall_s(context, record, provider, open_lines)
    for number, idle_s in open_shards:
        if idle_s >= stall_s:
            await mend(context, Shard(batch_id, provider, number))


async def _stall_s(context: Context, record: BatchRecord, provider: str, open_lines: int) -> float:
    """Give how long an open shard may stand still. Messages in a slow provider's queue are not lost, only waiting."""
    waiting = await context.state.run(queues.length(provider_queue(provider)))
    if not is_running(record) or not waiting:
        return context.settings.stall_s
    if waiting >= open_lines:
        return math.inf
    return context.settings.stall_s * _PATIENCE


async def _remove_retired(context: Context) -> None:
    """Remove some of the batches whose retention is over, or whose removal was cut short."""
    batch_ids = await context.state.run(retired.due(time.time(), _REMOVED_AT_ONCE))
    records = await context.state.run_all([batches.read(batch_id) for batch_id in batch_ids])
    for batch_id, record in zip(batch_ids, records, strict=True):
        await _unhindered(f"the removal of batch {batch_id}", _remove(context, batch_id, record))


async def _remove(context: Context, batch_id: str, record: BatchRecord | None) -> None:
    """Remove a batch if it is due; one that runs again is looked at later, when it may have ended again."""
    now, retention_s = time.time(), context.settings.retention_s
    if record is None:
        await context.state.run(retired.drop(batch_id))
        return
    kept_until = record.ended_ms / 1000 + retention_s if record.batch.status.is_terminal else now + retention_s
    if record.removing or kept_until <= now:
        await remove_batch(context.state, context.blobs, record)
    else:
        await context.state.run(retired.note(batch_id, kept_until))
