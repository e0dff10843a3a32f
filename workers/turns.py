"""Who waits for a time to send, in one lane of one provider: first come, first served, each at the time Redis gave."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from batchord.errors import BatchordError
from batchord.state import rates
from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from batchord.state.calls import Call
    from batchord.state.rates import Times
    from workers.rates import Lane

T = TypeVar("T")
Run: TypeAlias = "Callable[[Call[T]], Awaitable[T]]"

_LEAD_S: Final = 0.15
"""How long before the last time is used up the next ones are asked for: many round trips."""
_GATHER_S: Final = 0.01
"""How long requests gather that come one by one while nothing holds them back."""
_SETTLE_S: Final = 0.5
"""How long a correction waits for a reservation with which to travel."""
_LATE_S: Final = 0.01
"""Of several times that are due, those older than this are lost: to catch up would be a burst.

So no second has more than a hundredth beyond its share, which the margin of the rates leaves free; and a refusal, with
the pause that follows it, would cost more time.
"""
_MOST_ASKED: Final = 256


class DisbandedError(BatchordError):
    """The limits of the lane hold no more; whoever waited in it is to look where to wait now."""


class _Waiter(NamedTuple):
    tokens: Callable[[], int]
    turn: asyncio.Future[int]


class _Time(NamedTuple):
    """A moment of the loop's clock at which one request may be sent, and for how many tokens it was reserved."""

    at: float
    tokens: int


class Turns:
    """The times of one lane that are reserved for this process, and who waits for them. For one event loop.

    A time is not bound to whom it was asked for: the first in line takes the next one, so that who is cancelled leaves
    no gap.
    """

    def __init__(self, provider: str, run: Run[Times], lane: Lane) -> None:
        self.lane = lane
        self._provider = provider
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiter] = deque()
        self._times: list[_Time] = []
        self._ask_at = 0.0
        self._last_time = 0.0
        self._offset_s: float | None = None
        self._voided = 0
        self._correction = 0
        self._settle_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, tokens: Callable[[], int]) -> int:
        """Return when a request may be sent, with the number of tokens that was reserved for it.

        `tokens` is asked how many it needs only when a time is reserved: what answers report meanwhile counts.

        Raises:
            DisbandedError: the lane's limits have changed.
        """
        waiter = _Waiter(tokens, self._loop.create_future())
        self._waiting.append(waiter)
        self._advance()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def correct(self, tokens: int) -> None:
        """Count so many tokens more, or less, than were asked for."""
        if not self._correction:
            self._settle_at = self._loop.time() + _SETTLE_S
        self._correction += tokens
        self._advance()

    def void(self) -> None:
        """Forget the times that are reserved; who waits asks for others."""
        self._voided += 1
        self._times.clear()
        self._ask_at = 0.0
        self._advance()

    def disband(self) -> None:
        """Turn away who waits, in their order."""
        waiting, self._waiting = self._waiting, deque()
        self.void()
        for waiter in waiting:
            if not waiter.turn.done():
                waiter.turn.set_exception(DisbandedError())

    async def aclose(self) -> None:
        """End what goes on; nobody waits any more."""
        if self._timer:
            self._timer.cancel()
        if self._asking:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _advance(self) -> None:
        """Do all that is due, and come back when something else will be."""
        now = self._loop.time()
        self._let_go(now)
        if self._asking is None and self._next_ask() <= now:
            self._asking = self._loop.create_task(self._ask())
        due = min(self._times[0].at if self._times else float("inf"), self._next_ask())
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._advance) if due < float("inf") else None

    def _let_go(self, now: float) -> None:
        """Let those go whose time has come; a time for which nobody waits is not kept for later."""
        while self._waiting and self._times and self._times[0].at <= now:
            if self._waiting[0].turn.done():  # cancelled a moment ago
                self._waiting.popleft()
                continue
            time = heappop(self._times)
            if time.at >= now - _LATE_S or not self._times or self._times[0].at > now:
                self._waiting.popleft().turn.set_result(time.tokens)
        if not self._waiting:
            self._times.clear()

    def _next_ask(self) -> float:
        """Give when to ask Redis next; never where nothing is to be asked, or an answer is on its way."""
        if self._asking is not None:
            return float("inf")
        due = self._settle_at if self._correction else float("inf")
        if len(self._waiting) > len(self._times):
            return min(due, max(self._ask_at, self._last_time - _LEAD_S if self._times else 0.0))
        return due

    async def _ask(self) -> None:
        """Ask for the times of those who have none."""
        try:
            await self._reserve()
        except Exception as error:  # noqa: BLE001 (whoever waits gets it)
            self._times.clear()
            for waiter in self._waiting:
                if not waiter.turn.done():
                    waiter.turn.set_exception(error)
            self._waiting.clear()
        finally:
            self._asking = None
        self._advance()

    async def _reserve(self) -> None:
        voided, correction, self._correction = self._voided, self._correction, 0
        buckets = [limit.bucket(correction) for limit in self.lane.limits]
        asked = self._to_ask_for()
        call = rates.reserve(self._provider, buckets, [self._costs_s(tokens) for tokens in asked])
        begin, times = await patiently(lambda: self._send(call))
        if voided != self._voided:
            return
        for delay_s, tokens in zip(times.delays_s, asked, strict=False):
            heappush(self._times, _Time(begin + delay_s, tokens))
        self._last_time = max(self._times).at if self._times else 0.0
        self._ask_at = max(begin + times.again_s, self._loop.time() + _GATHER_S)

    def _to_ask_for(self) -> list[int]:
        """Give the tokens of those who have no time, of as many as may get one now."""
        asked: list[int] = []
        ahead_s = 0.0
        for waiter in islice(self._waiting, len(self._times), len(self._times) + _MOST_ASKED):
            asked.append(waiter.tokens())
            ahead_s += max(self._costs_s(asked[-1]))
            if ahead_s > rates.AHEAD_S:
                break
        return asked

    def _costs_s(self, tokens: int) -> list[float]:
        return [limit.cost_s(tokens) for limit in self.lane.limits]

    async def _send(self, call: Call[Times]) -> tuple[float, Times]:
        """Give Redis' answer, and the loop's time at which it was given.

        That time lies between sending and hearing. The offset of the two clocks that was known before is kept if it
        may still be right, so that times of successive answers don't jump by the length of a round trip.
        """
        sent_at = self._loop.time()
        times = await self._run(call)
        heard_at = self._loop.time()
        known = heard_at - times.now if self._offset_s is None else self._offset_s
        self._offset_s = min(max(known, sent_at - times.now), heard_at - times.now)
        return times.now + self._offset_s, times
