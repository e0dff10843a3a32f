"""A batch's further rounds: asking for a retry, taking it back, freeing what an ended round needs no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batchord import lifecycle
from batchord.lifecycle import Status
from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, is_one

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord

_RETRY, _WITHDRAW, _FREE = Script("retry"), Script("withdraw"), Script("free")
_STAMPS: Final = ("in_progress_at", "finalizing_at", "completed_at", "expired_at", "cancelling_at", "cancelled_at")
_SHOWN: Final = ("status", "expires_at", "max_cost", *_STAMPS, "started_ms", "ended_ms")
"""What the ended round shows, and shows again where the retry cannot begin. Counters and files stay as they are."""


def retry(record: BatchRecord, deadline: int, selection: str, max_cost_nanos: int | None = None) -> Call[bool]:
    """Move an ended batch into its next round; False where it has not ended, or is in a later round."""
    batch, move = record.batch, lifecycle.to(Status.VALIDATING)
    lists = [keys.lines(batch.id, provider) for provider in record.shards]
    args: list[Argument] = [len(move.sources), *move.sources, batch.round, deadline, selection]
    args.append("" if max_cost_nanos is None else max_cost_nanos)
    args += [len(_SHOWN), *_SHOWN, *record.shards]
    return _RETRY.call([keys.batch(batch.id), *lists], args, is_one)


def withdraw(batch_id: str, round_: int) -> Call[bool]:
    """Take back the retry that asked for this round; False where the round has started, or has ended before it did."""
    return _WITHDRAW.call([keys.batch(batch_id)], (round_, *_SHOWN), is_one)


def free(record: BatchRecord) -> Call[bool]:
    """Delete the lists of an ended round; False where the batch runs again."""
    batch = record.batch
    lists = [keys.lines(batch.id, provider) for provider in record.shards]
    ended = [status for status in Status if status.is_terminal]
    return _FREE.call([keys.batch(batch.id), *lists], (batch.round, *ended), is_one)
