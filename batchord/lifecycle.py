"""The statuses of a batch and the only ways between them. Pure: whoever moves a batch passes the rule to one script."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """What a batch is doing, in the words of OpenAI's Batch API."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the batch has ended; only a retry moves it again."""
        return self in _TERMINAL


class Outcome(StrEnum):
    """What became of a line. The value is the first letter of its record in Redis."""

    SUCCEEDED = "s"
    FAILED = "f"
    CANCELLED = "c"
    EXPIRED = "e"


NEXT: dict[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset({Status.FAILED, Status.IN_PROGRESS, Status.CANCELLING}),
    Status.IN_PROGRESS: frozenset({Status.FINALIZING, Status.CANCELLING}),
    Status.FINALIZING: frozenset({Status.COMPLETED, Status.EXPIRED, Status.CANCELLING}),
    Status.CANCELLING: frozenset({Status.CANCELLED}),
    Status.FAILED: frozenset(),
    Status.COMPLETED: frozenset({Status.VALIDATING}),
    Status.EXPIRED: frozenset({Status.VALIDATING}),
    Status.CANCELLED: frozenset({Status.VALIDATING}),
}
"""The transition table: section "Status machine" of OpenAI's Batch API as ARCHITECTURE.md tells it, and the retry.

A retry that cannot begin, since its input is gone, is taken back as if it had never been asked for.
"""

_TERMINAL: Final = frozenset({Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of the table: allowed from any of `sources`; `stamp` is the timestamp field that it sets."""

    sources: tuple[Status, ...]
    target: Status

    @property
    def stamp(self) -> str:
        """The field that keeps when the batch entered the target status."""
        return f"{self.target}_at"


def to(target: Status) -> Transition:
    """Give the transition into `target` from every status that may lead there."""
    return Transition(tuple(status for status, targets in NEXT.items() if target in targets), target)


def ending(status: Status, *, has_expired: bool) -> Status:
    """Give the terminal status of a batch whose every line has its outcome; `has_expired` if one ran out of time."""
    if status is Status.CANCELLING:
        return Status.CANCELLED
    return Status.EXPIRED if has_expired else Status.COMPLETED
