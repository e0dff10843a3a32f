"""The step that keeps a window of open shards for each batch and provider, so that Redis holds a window, not a file.

It opens what the window has room for, publishes the chord of each opened shard, and sends `finalize` when none is left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchord.broker import Step
from batchord.lifecycle import Status
from batchord.state import batches, shards
from batchord.state.keys import Shard

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord
    from workers.context import Context


async def feed(context: Context, batch_id: str) -> None:
    """Open and publish shards of a batch while its window has room; safe to run at any time, any number of times."""
    record = await context.state.run(batches.read(batch_id))
    if record is None or record.batch.status is Status.VALIDATING:
        return
    for provider in record.shards:
        await _fill_window(context, batch_id, provider)
    record = await context.state.run(batches.read(batch_id))
    if record is not None and not await has_more(context, record):
        await context.send(Step.FINALIZE, batch_id)


async def _fill_window(context: Context, batch_id: str, provider: str) -> None:
    window_lines = context.settings.window_lines
    while opened := await context.state.run(shards.open_next(batch_id, provider, window_lines)):
        number, lines = opened
        await context.publish(Shard(batch_id, provider, number), range(lines))


async def has_more(context: Context, record: BatchRecord) -> bool:
    """Whether any shard is open, or will be."""
    return await has_open(context, record) or (is_running(record) and has_planned(record))


def is_running(record: BatchRecord) -> bool:
    """Whether shards of the batch may still be opened."""
    return record.batch.status is Status.IN_PROGRESS and not record.is_past_deadline(time.time())


def has_planned(record: BatchRecord) -> bool:
    """Whether the batch has shards that were never opened."""
    return any(counts.opened < counts.planned for counts in record.shards.values())


async def has_open(context: Context, record: BatchRecord) -> bool:
    """Whether any shard of the batch is open."""
    calls = [shards.open_numbers(record.batch.id, provider) for provider in record.shards]
    return any(await context.state.run_all(calls))
