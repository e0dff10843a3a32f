"""How providers stand, in words for whoever waits for them. Not for what the fleet does about it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from batchord.errors import UnavailableError
from batchord.lifecycle import Status
from batchord.state import reports
from batchord.state.conditions import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchord.state.batches import BatchRecord
    from batchord.state.connection import BlockingState
    from batchord.state.reports import ProviderView

Word = Literal["ok", "paused", "open", "probing", "silent"]
STATES: Final[dict[Health, Word]] = {
    Health.CLOSED: "ok",
    Health.PAUSED: "paused",
    Health.OPEN: "open",
    Health.HALF_OPEN: "probing",
    Health.SILENT: "silent",
}
"""The word for each health, in the table and in the API."""

_LOOK_EVERY_S: Final = 1.0
_LONG_S: Final = 5.0
"""A first answer may well take so long."""


def trouble(view: ProviderView) -> str | None:
    """Say what a provider's lines wait for; None where nothing keeps them."""
    condition = view.condition
    reason, wait_s = condition.reason or "no reason given", f"{condition.wait_s:,.0f} s"
    match condition.health:
        case Health.SILENT:
            return f"{view.name} has not answered yet: {reason}, {condition.failing_s:,.0f} s"
        case Health.PAUSED:
            return f"{view.name} asks to wait {wait_s} ({reason})"
        case Health.OPEN:
            return f"{view.name} fails: {reason}; it is tried again in {wait_s}"
        case Health.HALF_OPEN:
            return f"{view.name} fails: {reason}; it is being tried again"
    return None


class Troubles:
    """What a batch's lines wait for, read once in a while; what is read while Redis is away stays as it was."""

    def __init__(self, state: BlockingState) -> None:
        self._state = state
        self._onlooker = Onlooker()
        self._text, self._next_look = "", 0.0

    def of(self, record: BatchRecord) -> str:
        """Say it in one text; empty where all goes as it should."""
        now = time.monotonic()
        if record.batch.status is not Status.IN_PROGRESS:
            return ""
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_S
            with suppress(UnavailableError):
                self._text = self._onlooker.say(self._state.run(reports.read(*record.shards)), now)
        return self._text


class Onlooker:
    """Says what a batch waits for: also that a provider keeps its first requests waiting, which is no fault yet."""

    def __init__(self) -> None:
        self._waits_since: dict[str, float] = {}

    def say(self, views: Iterable[ProviderView], now: float) -> str:
        """Give the troubles at this moment as one text; empty where there are none."""
        said = (trouble(view) or self._silence(view, now) for view in views)
        return "; ".join(filter(None, said))

    def _silence(self, view: ProviderView, now: float) -> str | None:
        if view.condition.answered_at or not 0 < view.sent - view.refused - view.failed <= view.in_flight:
            self._waits_since.pop(view.name, None)
            return None
        waited_s = now - self._waits_since.setdefault(view.name, now)
        if waited_s < _LONG_S:
            return None
        return f"{view.name} has not answered yet: {view.in_flight:,} requests in flight, {waited_s:,.0f} s"
