"""What the kernel asks about the broker's queues, which are lists in the same Redis. Messages are the broker's own."""

from __future__ import annotations

from typing import Final

from batchord.state.calls import Call, nothing

_UNACKED: Final = ("unacked", "unacked_index", "unacked_mutex")


def length(queue: str) -> Call[int]:
    """Give how many messages wait in a queue."""
    return Call(("LLEN", queue), int)


def clear(queues: list[str]) -> Call[None]:
    """Drop all messages of these queues, delivered or not: only for a fleet that is known to be dead.

    Nothing is lost, for the state tells what is missing, and a mend publishes it again.
    """
    return Call(("DEL", *queues, *_UNACKED), nothing)
