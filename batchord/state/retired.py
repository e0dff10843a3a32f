"""The list of ended batches by when they are removed. Not for the removal itself."""

from __future__ import annotations

from batchord.state import keys
from batchord.state.calls import Call, nothing


def note(batch_id: str, at: float) -> Call[None]:
    """Note when an ended batch is to be removed."""
    return Call(("ZADD", keys.RETIRED, at, batch_id), nothing)


def drop(batch_id: str) -> Call[None]:
    """Forget it: the batch is gone, or runs again."""
    return Call(("ZREM", keys.RETIRED, batch_id), nothing)


def due(now: float, most: int) -> Call[list[str]]:
    """Give batches that are to be removed by now, at most so many."""
    command = ("ZRANGEBYSCORE", keys.RETIRED, "-inf", now, "LIMIT", 0, most)
    return Call(command, lambda answer: [batch_id.decode() for batch_id in answer])
