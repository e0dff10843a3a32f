"""What this process has fetched and not yet settled, and how much it may fetch: it outlives any connection.

Not for what the server knows of it: that is `transport_unacked`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class InFlight:
    """The messages in flight in this process, and the slots of each queue.

    Only the thread of Celery's event loop calls it, but for `set_slots`, which any thread may call.
    """

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._queue_of: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._acked: dict[str, None] = {}

    def __contains__(self, tag: str) -> bool:
        return tag in self._queue_of

    @property
    def tags(self) -> list[str]:
        """The delivery tags in flight, oldest first."""
        return list(self._queue_of)

    @property
    def acked(self) -> list[str]:
        """The tags that are done, of which the server may not know yet; oldest first."""
        return list(self._acked)

    def meters(self, queue: str) -> bool:
        """Whether the queue has slots at all; one without is consumed as kombu does it."""
        return queue in self._slots

    def set_slots(self, queue: str, slots: int) -> None:
        """Let at most `slots` messages of the queue be in flight from now on; the loop sees it within a second."""
        self._slots[queue] = slots

    def offer_slots(self, slots: dict[str, int]) -> None:
        """Give slots to the queues that have none yet."""
        for queue, count in slots.items():
            self._slots.setdefault(queue, count)

    def free(self, queue: str) -> int:
        """How many more messages of the queue may be fetched; 0 without slots."""
        return max(0, self._slots.get(queue, 0) - self._held[queue])

    def begin(self, tag: str, queue: str) -> bool:
        """Note that the message is in flight; False if it is already, or done: it must not run again."""
        if tag in self._queue_of or tag in self._acked:
            return False
        self._queue_of[tag] = queue
        self._held[queue] += 1
        return True

    def forget(self, tag: str) -> bool:
        """Free the message's slot; False if it was not in flight."""
        queue = self._queue_of.pop(tag, None)
        if queue is None:
            return False
        self._held[queue] -= 1
        return True

    def ack(self, tag: str) -> bool:
        """Note that the message is done; False if it was not in flight. The server hears of it with the next fetch."""
        if not self.forget(tag):
            return False
        self._acked[tag] = None
        return True

    def confirm(self, tags: Iterable[str]) -> None:
        """Note that the server knows that these are done."""
        for tag in tags:
            self._acked.pop(tag, None)


IN_FLIGHT = InFlight()
