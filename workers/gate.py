"""What a line passes before it is sent to one provider: its condition, its permits, its pace. Not which provider."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from workers.estimates import Estimates
from workers.lanes import lane_of
from workers.providers import ProviderError, Response
from workers.retry import is_final_refusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from batchord.routing import Provider
    from batchord.state.reports import Report
    from workers.condition import Condition
    from workers.pace import Pace
    from workers.permits import Permits
    from workers.reporting import Tally
    from workers.samples import Samples

_MINUTE_S: Final = 60.0
_LONGEST_REST_S: Final = 60.0
"""What a misread header may cost; a provider that needs longer will say so with a refusal."""


class Passage:
    """The right to send one request now: to be ended by `sent`, or by `leave` if nothing was sent."""

    __slots__ = ("_gate", "_permits", "body_bytes", "is_probe", "is_retry", "model", "sent_at", "tokens")

    def __init__(
        self, gate: Gate, model: str, body_bytes: int, permits: tuple[Permits, ...], *, is_probe: bool
    ) -> None:
        self._gate = gate
        self._permits = permits
        self.body_bytes = body_bytes
        self.model = model
        self.is_probe = is_probe
        self.is_retry = False
        self.tokens = 0
        self.sent_at = 0.0

    @property
    def provider(self) -> str:
        """The provider that it leads to."""
        return self._gate.provider.name

    @property
    def is_open(self) -> bool:
        """Whether the request may be sent at this moment: the provider may have been paused since."""
        return self.is_probe or not self._gate.condition.is_blocked

    def send(self, *, is_retry: bool = False) -> None:
        """Note that the request is being sent; `is_retry` if its line has failed often enough to be at fault itself."""
        self.is_retry = is_retry
        self.sent_at = time.monotonic()
        self._gate.samples.began()
        self._gate.tally.began()

    def sent(self, result: Response | ProviderError) -> None:
        """Hand in what became of the request, and give the permits back."""
        try:
            self._gate.judge(self, result)
        finally:
            self._give_back()

    def dropped(self) -> None:
        """Give the permits back of a request of whose end nothing can be learned of the provider."""
        self._gate.samples.dropped()
        self._gate.tally.dropped()
        self.leave()

    def leave(self) -> None:
        """Give back what was taken for a request that is not sent."""
        if self.is_probe:
            self._gate.condition.let_go()
        if self.tokens:
            self._gate.pace.settle(self.model, self.tokens, 0)
        self._give_back()

    def _give_back(self) -> None:
        for permits in self._permits:
            permits.give_back()


def abandon(entering: asyncio.Task[Passage]) -> None:
    """Stop waiting for a passage; one that comes at the same moment is given back."""
    entering.cancel()
    entering.add_done_callback(_leave)


def _leave(entered: asyncio.Task[Passage]) -> None:
    if not entered.cancelled() and entered.exception() is None:
        entered.result().leave()


@dataclass(slots=True)
class Gate:
    """One provider, as this process sees it; `permits` by lane, its own under its name."""

    provider: Provider
    condition: Condition
    pace: Pace
    samples: Samples
    tally: Tally
    permits: Mapping[str, Permits]
    estimates: Estimates = field(default_factory=Estimates)

    def __post_init__(self) -> None:
        self.condition.on_pause = self.pace.void

    def adopt(self, provider: Provider) -> None:
        """Go by what a changed providers file says; lines that wait here go on waiting by that."""
        self.provider = provider
        self.pace.adopt(provider)

    @property
    def held(self) -> int:
        """The permits that lines hold here: requests in flight, and those that wait for their time."""
        return self.permits[self.provider.name].held

    def report(self, worker: str) -> Report:
        """Give what this process does there at the moment."""
        own = self.permits[self.provider.name]
        waiting = self.condition.waiting + own.waiting + own.held - self.tally.in_flight
        return self.tally.report(worker, waiting, own.limit, self.pace.rates())

    def is_plain(self, model: str) -> bool:
        """Whether a line waits here for a permit alone."""
        return self.condition.is_clear and self.pace.is_free(model)

    def try_enter(self, model: str, body: bytes) -> Passage | None:
        """Give a passage if there is one at once."""
        if not self.is_plain(model):
            return None
        taken: list[Permits] = []
        for permits in self._lanes(model):
            if not permits.try_take():
                for other in taken:
                    other.give_back()
                return None
            taken.append(permits)
        return Passage(self, model, len(body), tuple(taken), is_probe=False)

    async def enter(self, model: str, body: bytes) -> Passage:
        """Give a passage as soon as there is one; safe to cancel.

        Raises:
            Draining: this worker ends, or has no part of the limit.
        """
        while True:
            is_probe = not self.condition.is_clear and await self.condition.clear()
            passage = await self.take(model, body, is_probe=is_probe)
            if not self.pace.is_free(model):
                await self._turn(passage, body)
            if passage.is_open:
                return passage
            passage.leave()

    async def take(self, model: str, body: bytes, *, is_probe: bool = False) -> Passage:
        """Give a passage as soon as there is a permit; whether it is open is to be looked at.

        Raises:
            Draining: this worker ends, or has no part of the limit.
        """
        taken: list[Permits] = []
        try:
            for permits in self._lanes(model):
                await permits.take()
                taken.append(permits)
        except BaseException:
            Passage(self, model, len(body), tuple(taken), is_probe=is_probe).leave()
            raise
        return Passage(self, model, len(body), tuple(taken), is_probe=is_probe)

    async def _turn(self, passage: Passage, body: bytes) -> None:
        try:
            passage.tokens = await self.pace.turn(passage.model, lambda: self.estimates.of(passage.model, body))
        except BaseException:
            passage.leave()
            raise

    def _lanes(self, model: str) -> list[Permits]:
        own = self.permits[self.provider.name]
        lane = lane_of(self.provider, model) if self.provider.limits else None
        return [own] if lane is None else [self.permits[lane], own]

    def judge(self, passage: Passage, result: Response | ProviderError) -> None:
        """Learn from an answer: what the provider's condition is, what it takes, and what a request costs."""
        if passage.is_probe:
            self.samples.dropped()  # it went alone: how many more there is room for it does not tell
        else:
            self.samples.ended(result, time.monotonic() - passage.sent_at)
        self.tally.ended(result)
        if not (isinstance(result, Response) and result.is_throttled and is_final_refusal(result)):
            self.condition.tell(result, passage.sent_at, is_retry=passage.is_retry)
        elif passage.is_probe:
            self.condition.let_go()
        if isinstance(result, Response):
            self._learn(passage, result)
        elif passage.tokens:
            self.pace.settle(passage.model, passage.tokens, 0 if result.is_unsent else passage.tokens)

    def _learn(self, passage: Passage, response: Response) -> None:
        used = response.usage.total_tokens
        if response.is_success and used:
            self.estimates.learn(passage.model, passage.body_bytes, response.usage)
        if passage.tokens and (used or not response.is_success):
            self.pace.settle(passage.model, passage.tokens, used)
        if response.stated:
            self.pace.learn(passage.model, response.stated)
            self._mind_the_rest(response)

    def _mind_the_rest(self, response: Response) -> None:
        """Wait for the reset of a limit of which nothing is left, rather than be refused.

        Not of a limit a minute that is stated: the pace keeps it, and its reset says when *all* of it is back.
        """
        for stated in response.stated:
            is_kept = stated.limit is not None and stated.window_s <= _MINUTE_S
            if not is_kept and stated.remaining is not None and stated.remaining < 1 and stated.reset_s:
                self.condition.pause(min(stated.reset_s, _LONGEST_REST_S))
