"""Whether a request may be sent to a provider now, as the fleet knows it: a line waits here and uses up no attempt.

Not for how many are sent at once, nor how fast. A pause that this process sees holds here at once; whether a circuit is
open is said by Redis alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from batchord.state import conditions as fleet
from batchord.state.conditions import ProviderCondition
from workers.meaning import Meaning, meaning_of, reason_of
from workers.news import Answered, Event, Failed, News, Paused, Probe
from workers.providers.seam import Response
from workers.waves import Waves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchord.routing import Provider
    from batchord.state.calls import Call
    from workers.providers.seam import ProviderError

_LONGEST_PAUSE_S: Final = 86_400.0
_SHORTEST_BACKOFF_S: Final = 0.25
_LONGEST_BACKOFF_S: Final = 60.0
_ANSWERS_APART_S: Final = 5.0
_PROBE_LIFE_S: Final = 15.0
"""How long the fleet waits for a prober that has died; one that lives prolongs it with each look at Redis."""
_LATE_S: Final = 5.0
"""Who is later than this is not late: the clock of Redis was set back."""


class Condition:
    """How one provider is; for one event loop. `run` sends a call to Redis, `clock` is monotonic.

    `is_clear` says whether who comes now need not wait. `is_blocked` says whether nothing may be sent at this moment,
    not even by who has waited and was let go; `on_pause` is called when that begins.
    """

    def __init__(
        self,
        provider: Provider,
        worker: str,
        run: Callable[[Call[ProviderCondition]], Awaitable[ProviderCondition]],
        give_up_after_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_clear = True
        self.is_blocked = False
        self.on_pause: Callable[[], None] | None = None
        self._provider, self._worker, self._run = provider, worker, run
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._news = News(self._tell_redis)
        self._waves = Waves()
        self._alarm: asyncio.TimerHandle | None = None
        self._known, self._heard_at = ProviderCondition(provider.name), clock()
        self._own_pause_until = 0.0
        self._is_troubled = self._is_asking = False
        self._answer_told_at = float("-inf")
        self._probing_since: float | None = None

    @property
    def waiting(self) -> int:
        """How many lines wait for it."""
        return len(self._waves)

    @property
    def unavailable_s(self) -> float:
        """For how long nothing may be sent: the rest of a pause, or until the next probe; 0 if that may be now."""
        if self.is_clear:
            return 0.0
        until = max(self._paused_until, self._open_until, self._probed_until)
        return max(0.0, until - self._clock())

    @property
    def given_up(self) -> str | None:
        """Why lines are to fail instead of waiting; None at the moments at which one of them may find out more."""
        now = self._clock()
        failing_s = self._known.failing_s + now - self._heard_at
        if self._give_up_after_s is None or not self._known.failing_since or now >= self._open_until:
            return None
        if failing_s < self._give_up_after_s:
            return None
        return f"Provider {self._provider.name} has not answered for {self._give_up_after_s:g} s: {self._known.reason}."

    async def clear(self) -> bool:
        """Wait until a request may be sent, first come, first served; safe to cancel.

        True for the probe of a provider that has failed: its result must be told, or it be let go.
        """
        if self.is_clear:
            return False
        turn = self._waves.join()
        self._look()
        try:
            return await turn
        except asyncio.CancelledError:
            self._waves.leave(turn)
            if turn.done() and not turn.cancelled() and turn.result():
                self.let_go()
            raise

    def tell(self, result: Response | ProviderError, sent_at: float, *, is_retry: bool = False) -> None:
        """Take note of the result of a request that was sent at `sent_at` (monotonic).

        A status from 500 that a retry meets again may be the line's own fault, and does not open the circuit.
        """
        meaning = meaning_of(result)
        is_probe = self._probing_since is not None and sent_at >= self._probing_since
        if meaning is Meaning.ANSWERED:
            self._answered(sent_at, is_probe=is_probe)
        elif meaning in {Meaning.FAILED, Meaning.TIMED_OUT}:
            counts = meaning is Meaning.FAILED and not (is_retry and isinstance(result, Response))
            self._failed(Failed(sent_at, int(counts), reason_of(result), is_probe))
        if meaning is Meaning.REFUSED or result.retry_after_s:
            is_well = meaning in {Meaning.REFUSED, Meaning.ANSWERED}
            self._pause(sent_at, result.retry_after_s, reason_of(result), is_well=is_well)
        if is_probe and meaning in {Meaning.REFUSED, Meaning.NOTHING}:
            self.let_go()
        elif is_probe:
            self._probing_since = None

    def pause(self, seconds: float) -> None:
        """Send nothing for so long, since the provider said that nothing is left until then."""
        self._pause(self._clock(), seconds, "its limit is used up", is_well=True)

    def let_go(self) -> None:
        """Let another line be the probe: this one was not sent after all, or its answer says nothing."""
        if self._probing_since is not None:
            self._probing_since = None
            self._news.tell(Probe.LET_GO)

    def keep_probe(self) -> None:
        """Prolong the right to send the probe, if this process has it, for as long as a request may take, and wait."""
        if self._probing_since is None:
            return
        if self._clock() - self._probing_since < 2 * self._provider.timeout_s + _PROBE_LIFE_S:
            self._news.tell(Probe.KEEP)
        else:
            self._probing_since = None

    def hear(self, known: ProviderCondition) -> None:
        """Take over what Redis says of the provider, unless it has said something else since."""
        if 0 < self._known.now - known.now < _LATE_S:
            return
        self._known, self._heard_at = known, self._clock()
        self._is_troubled = bool(known.failing_since or known.failures or known.pauses)
        self._look()

    def close(self) -> None:
        """Tell Redis no more, nor let anybody go."""
        self._news.close()
        self._look_again_at(None)

    def _answered(self, sent_at: float, *, is_probe: bool) -> None:
        now = self._clock()
        if is_probe or self._is_troubled or now - self._answer_told_at > _ANSWERS_APART_S:
            self._answer_told_at = now
            self._news.tell(Answered(sent_at, is_probe))

    def _failed(self, failed: Failed) -> None:
        """Tell of a failure, unless it is one of those for which the circuit is, or was, open."""
        if failed.is_probe or (not self._known.open_until and failed.sent_at >= self._here(self._known.changed_at)):
            self._is_troubled = True
            self._news.tell(failed)

    def _pause(self, sent_at: float, wait_s: float | None, reason: str, *, is_well: bool) -> None:
        """Pause here at once, and tell the fleet; what was sent before the end of a pause does not double it."""
        now = self._clock()
        if not wait_s and sent_at < self._paused_until:
            return
        backoff_s = min(_LONGEST_BACKOFF_S, _SHORTEST_BACKOFF_S * 2.0 ** min(self._known.pauses, 10))
        until = now + min(wait_s or backoff_s, _LONGEST_PAUSE_S)
        if until > self._paused_until:
            self._own_pause_until, self._is_troubled = until, True
            self._news.tell(Paused(sent_at, until if wait_s else None, reason, is_well))
            self._look()

    def _here(self, time_of_redis: float) -> float:
        """Give a time of Redis by the clock of this process, long ago if there is none."""
        return self._heard_at + time_of_redis - self._known.now

    @property
    def _paused_until(self) -> float:
        return max(self._own_pause_until, min(self._here(self._known.pause_until), self._heard_at + _LONGEST_PAUSE_S))

    @property
    def _open_until(self) -> float:
        return self._here(self._known.open_until)

    @property
    def _probed_until(self) -> float:
        return self._here(self._known.probe_until)

    def _look(self) -> None:
        """Let go who may go now, and look again when that will change."""
        now = self._clock()
        blocked_until = max(self._paused_until, self._open_until)
        if now < blocked_until:
            self._block()
            self._look_again_at(blocked_until)
        elif self._known.open_until:
            self._block()
            self._look_again_at(self._probed_until if now < self._probed_until else None)
            if now >= self._probed_until:
                self._ask_to_probe()
        else:
            self.is_blocked = False
            next_at = self._waves.release(now)
            self.is_clear = next_at is None
            self._look_again_at(next_at)

    def _block(self) -> None:
        self.is_clear = False
        if not self.is_blocked:
            self.is_blocked = True
            self._waves.restart()
            if self.on_pause:
                self.on_pause()

    def _look_again_at(self, at: float | None) -> None:
        if self._alarm:
            self._alarm.cancel()
        later_s = 0.0 if at is None else max(0.0, at - self._clock())
        self._alarm = None if at is None else asyncio.get_running_loop().call_later(later_s, self._look)

    def _ask_to_probe(self) -> None:
        if self._waves and self._probing_since is None and not self._is_asking:
            self._is_asking = True
            self._news.tell(Probe.TAKE)

    async def _tell_redis(self, event: Event) -> None:
        try:
            self.hear(await self._run(self._call(event)))
            if event is Probe.TAKE and self._known.probe == self._worker:
                self._begin_probe()
        finally:
            self._is_asking = self._is_asking and event is not Probe.TAKE

    def _begin_probe(self) -> None:
        """Let the first line go that waits; let another worker probe if there is none any more."""
        self._probing_since = self._clock()
        if self._clock() < self._paused_until or not self._waves.let_one_go():
            self.let_go()

    def _failure(self, event: Failed, sent_ago_s: float) -> Call[ProviderCondition]:
        return fleet.failed(
            self._provider.name,
            self._worker,
            sent_ago_s,
            count=event.count,
            reason=event.reason,
            give_up_after_s=self._give_up_after_s,
            is_probe=event.is_probe,
        )

    def _call(self, event: Event) -> Call[ProviderCondition]:
        name, now = self._provider.name, self._clock()
        match event:
            case Failed():
                return self._failure(event, now - event.sent_at)
            case Answered():
                return fleet.answered(name, self._worker, now - event.sent_at, is_probe=event.is_probe)
            case Paused():
                rest_s = None if event.until is None else max(0.001, event.until - now)
                return fleet.paused(name, now - event.sent_at, rest_s, reason=event.reason, is_well=event.is_well)
            case Probe.LET_GO:
                return fleet.let_go(name, self._worker)
            case Probe.TAKE | Probe.KEEP:
                return fleet.take_probe(name, self._worker, min(_PROBE_LIFE_S, self._provider.timeout_s))
