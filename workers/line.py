"""A line under way in this process: where it stands, what was tried so far, and whether it may still be sent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchord.shard_file import Attempt, PlannedLine, Trace
from batchord.state.shards import Verdict
from batchord.validation import model_of
from workers.draining import pause

if TYPE_CHECKING:
    from batchord.contract import Answer, LineError
    from batchord.lifecycle import Outcome
    from batchord.routing import Routes, Ways
    from batchord.state.keys import Shard
    from workers.context import Context
    from workers.providers import Response

_TO_SEND: Final = (Verdict.SEND, Verdict.SUSPECT)
_NO_LINE: Final = PlannedLine(0, "", msgspec.Raw(b""))
_ASK_AGAIN_S: Final = 2.0
"""How often a line that waits looks whether its batch was cancelled or is past its deadline."""
_MOST_ATTEMPTS: Final = 100
"""How many attempts are told of; a line may wait for a provider that refuses it for a day."""


@dataclass(slots=True)
class Settled:
    """What became of a line; `response` is None where no answer came, or that of the line `copy_of` was taken."""

    outcome: Outcome
    result: Answer | LineError
    response: Response | None = None
    copy_of: int | None = None


@dataclass(slots=True)
class LineUnderWay:
    """A line, its verdict as of `asked_at`, and its attempts.

    `tries` counts those of the provider asked last, `spent_s` what they took with the waits between them; both leave
    out what the provider did not take. `provider` is the one asked last, `asked_model` what it calls the model.
    """

    shard: Shard
    index: int
    verdict: Verdict = Verdict.UNSURE
    asked_at: float = 0.0
    endpoint: str = ""
    planned: PlannedLine = _NO_LINE
    model: str = ""
    body: bytes = b""
    provider: str = ""
    asked_model: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    sent: int = 0
    tries: int = 0
    spent_s: float = 0.0
    _unable: set[str] = field(default_factory=set)

    @property
    def may_be_sent(self) -> bool:
        """Whether the last verdict is to send it."""
        return self.verdict in _TO_SEND

    @property
    def has_failed_again(self) -> bool:
        """Whether it has failed more than once, so that it may be at fault itself.

        Once says nothing: when a provider breaks down near a batch's end, all lines that are left have failed once.
        """
        return self.tries > 1

    def take(self, endpoint: str, planned: PlannedLine) -> None:
        """Take over what the plan says of the line."""
        self.endpoint, self.planned, self.body = endpoint, planned, bytes(planned.body)
        self.model, self.provider = model_of(self.body), self.shard.provider
        self.asked_model = self.model

    async def ask(self, context: Context) -> None:
        """Ask whether to send the line; waits until it is clear whether a silent worker that claimed it is dead."""
        while True:
            self.asked_at = time.monotonic()
            self.verdict = await context.desk.begin(self.shard, self.index)
            if self.verdict is not Verdict.UNSURE:
                return
            await pause(context.draining, context.desk.doubt_s)

    async def ask_if_stale(self, context: Context) -> None:
        """Ask once more if the verdict is old: the batch may be stopped, and a worker that was may be thought dead."""
        if time.monotonic() - self.asked_at > context.desk.verdict_life_s:
            await self.ask(context)

    async def waits_for(self, context: Context, task: asyncio.Task[Any]) -> bool:
        """Wait for a task, a while; where it is not done by then, ask again whether to send the line at all."""
        if (await asyncio.wait({task}, timeout=_ASK_AGAIN_S))[0]:
            return True
        await self.ask(context)
        return False

    def ways(self, routes: Routes) -> Ways:
        """Give who may answer it, without those that cannot serve it at all."""
        ways = routes.ways(self.shard.provider, self.model, is_named=self.planned.is_named)
        return ways.without(self._unable) if self._unable else ways

    def has_other_way(self, routes: Routes, provider: str) -> bool:
        """Whether anybody else may answer it."""
        ways = self.ways(routes)
        return any(way.provider != provider for way in (*ways.peers, *ways.fallbacks))

    def turn_from(self, provider: str) -> None:
        """Ask a provider no more, and count the attempts of another one anew."""
        self._unable.add(provider)
        self.tries = 0

    def tried(self, attempt: Attempt) -> None:
        """Note an attempt; of very many the first and the last stay."""
        if len(self.attempts) >= _MOST_ATTEMPTS:
            del self.attempts[_MOST_ATTEMPTS // 2]
        self.attempts.append(attempt)
        self.sent += 1
        self.tries += 1
        self.spent_s += attempt.latency_ms / 1000

    def not_taken(self) -> None:
        """Note that the last one was no attempt: the provider has not taken the request."""
        self.tries -= 1
        self.spent_s -= self.attempts[-1].latency_ms / 1000

    def will_wait(self, seconds: float) -> None:
        """Note the wait before the next attempt."""
        self.attempts[-1] = msgspec.structs.replace(self.attempts[-1], wait_s=round(seconds, 3))
        self.spent_s += seconds

    @property
    def helper(self) -> str | None:
        """The provider asked last, where it is not the one whose queue the line is in."""
        return None if self.provider == self.shard.provider else self.provider

    @property
    def trace(self) -> Trace:
        """What was tried, as it is kept."""
        return Trace(self.provider, list(map(self._as_told, self.attempts)) if self.helper else self.attempts)

    def _as_told(self, attempt: Attempt) -> Attempt:
        """Name the provider of an attempt where it is not the trace's, which is the one asked last."""
        by = attempt.provider or self.shard.provider
        return msgspec.structs.replace(attempt, provider=None if by == self.provider else by)
