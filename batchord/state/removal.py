"""The removal of an ended batch's keys, in two moves: hidden first, erased last. Its bytes go in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchord.lifecycle import Status
from batchord.state import keys, listings, once, retired
from batchord.state.calls import Call, Script, is_one, nothing

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord

_CONDEMN = Script("condemn")


def condemn(record: BatchRecord) -> Call[bool]:
    """Hide an ended batch for good; False where it runs, or is gone."""
    ended = [status for status in Status if status.is_terminal]
    return _CONDEMN.call([keys.batch(record.batch.id)], (record.batch.round, *ended), is_one)


def erase(record: BatchRecord) -> list[Call[None]]:
    """Delete what is left of a condemned batch; its place on the list of those to remove goes last."""
    batch = record.batch
    lists = [keys.lines(batch.id, provider) for provider in record.shards]
    return [
        Call(("DEL", keys.batch(batch.id), keys.analytics(batch.id), *lists), nothing),
        listings.drop(keys.tenant_batches(batch.tenant), [batch.id]),
        *([once.forget(batch.tenant, batch.once)] if batch.once else []),
        retired.drop(batch.id),
    ]
