"""The step that keeps a window of open shards for each provider, so that Redis holds a window, and not the files.

It opens what the window has room for, whose turn it is, and publishes the chord of each opened shard. Room that one
batch leaves may be another's. It sends `finalize` when its own batch has none left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchord.broker import Step
from batchord.lifecycle import Status
from batchord.state import batches, shards, waiting
from batchord.state.keys import Shard
from batchord.state.waiting import Waiting
from workers.fairness import turn
from workers.order import publishing_order

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord
    from batchord.state.calls import Call
    from workers.context import Context


async def feed(context: Context, batch_id: str) -> None:
    """Open and publish shards while the windows of the batch's providers have room; safe to run at any time.

    Whoever makes room, or brings a batch that waits for it, feeds after that: so somebody sees both.
    """
    record = await context.state.run(batches.read(batch_id))
    if record is None or record.batch.status is Status.VALIDATING:
        return
    await line_up(context, record)
    for provider in record.shards:
        await fill_window(context, provider)
    record = await context.state.run(batches.read(batch_id))
    if record is not None:
        await end_if_done(context, record)


async def line_up(context: Context, record: BatchRecord) -> None:
    """Have a batch wait at each provider for which it has shards to open, and at no other."""
    await context.state.run_all(_places(record))


def _places(record: BatchRecord) -> list[Call[None]]:
    batch, runs = record.batch, is_running(record)
    place = Waiting(batch.tenant, batch.expires_at, batch.created_at, batch.id)
    return [
        (waiting.enter if runs and counts.opened < counts.planned else waiting.leave)(provider, place)
        for provider, counts in record.shards.items()
    ]


async def end_if_done(context: Context, record: BatchRecord) -> None:
    """Send `finalize` if a batch has no open shard, and will have none."""
    if not await has_more(context, record):
        await context.send(Step.FINALIZE, record.batch.id)


async def fill_window(context: Context, provider: str) -> None:
    """Open what a provider's window has room for; who was refused and is still the next one waits for room."""
    refused = None
    while (place := await _turn(context, provider)) and place != refused:
        window_lines = context.settings.window_lines
        opened = await context.state.run(shards.open_next(place.batch_id, provider, window_lines, place.entry))
        if opened:
            number, lines = opened
            shard = Shard(place.batch_id, provider, number)
            await context.publish(shard, await publishing_order(context, shard, lines))
        refused = None if opened else place


async def _turn(context: Context, provider: str) -> Waiting | None:
    queue = await context.state.run(waiting.queue(provider))
    return turn(queue, context.settings.tenant_weights, context.settings.window_lines)


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
