"""Whose turn it is at a provider: a pure rule over who waits there and what is open. Not for opening anything.

A provider's queue is first in, first out, so each tenant is served in proportion to what it has open there. So the next
shard goes to the tenant with the fewest open lines for its weight (max-min fairness). That needs no memory of earlier
turns, which two workers that decide at once, or one that dies, could put out of step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.state.waiting import Queue, Waiting


def turn(queue: Queue, weights: Mapping[str, float], window_lines: int) -> Waiting | None:
    """Give the batch whose next shard is to be opened; None where nobody waits, or who waits has to wait.

    A tenant that has no line open goes before all others, and need not wait for room. Among equals the earlier
    deadline goes first, then the older batch. A tenant of no stated weight has 1.
    """
    if not queue.first:
        return None

    def rank(waiting: Waiting) -> tuple[float, int, int, str]:
        open_lines = queue.open_lines.get(waiting.tenant, 0)
        return open_lines / weights.get(waiting.tenant, 1), waiting.deadline, waiting.created_at, waiting.batch_id

    following = min(queue.first, key=rank)
    is_full = sum(queue.open_lines.values()) >= window_lines
    return None if is_full and following.tenant in queue.open_lines else following
