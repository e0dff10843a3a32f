"""Who waits at a provider for room in its window, and how much of it each tenant has. Not for whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from batchord.state import keys
from batchord.state.calls import Call, Script, mapping, nothing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_QUEUE = Script("queue")


class Waiting(NamedTuple):
    """A batch with a shard that was never opened; times are UTC epoch seconds."""

    tenant: str
    deadline: int
    created_at: int
    batch_id: str

    @property
    def entry(self) -> str:
        """The batch's member of the list, which sorts by tenant, then by deadline, then by age."""
        return f"{self.tenant} {self.deadline:012d} {self.created_at:012d} {self.batch_id}"

    @classmethod
    def of(cls, entry: str) -> Self:
        """Read what `entry` wrote."""
        tenant, deadline, created_at, batch_id = entry.split(" ")
        return cls(tenant, int(deadline), int(created_at), batch_id)


class Queue(NamedTuple):
    """The first batch of each tenant that has one that waits, and the open lines of each tenant that has any."""

    first: Sequence[Waiting]
    open_lines: Mapping[str, int]


def enter(provider: str, waiting: Waiting) -> Call[None]:
    """Put a batch on a provider's list; once is enough."""
    return Call(("ZADD", keys.waiting(provider), 0, waiting.entry), nothing)


def leave(provider: str, waiting: Waiting) -> Call[None]:
    """Take a batch off a provider's list."""
    return Call(("ZREM", keys.waiting(provider), waiting.entry), nothing)


def queue(provider: str) -> Call[Queue]:
    """Tell who waits at a provider, and what is open there."""
    return _QUEUE.call([keys.waiting(provider), keys.tenant_lines(provider)], (), _queue)


def _queue(answer: Any) -> Queue:
    entries, lines = answer
    first = [Waiting.of(entry.decode()) for entry in entries]
    return Queue(first, {tenant: int(count) for tenant, count in mapping(lines).items()})
