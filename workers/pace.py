"""How fast requests go to one provider: each model's lines wait for their turn, at rates that the whole fleet keeps."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from batchord.state import rates
from batchord.state.rates import Learned
from workers.patience import patiently
from workers.rates import NO_RATES, Rates, in_force, rate_lane, rates_stated
from workers.turns import DisbandedError, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchord.routing import Provider
    from workers.providers.seam import StatedLimit
    from workers.turns import Run

_HEAR_S: Final = 2.0
_HEARINGS: Final = 30
"""How often a provider that is not used any more is still heard of: long requests may be under way."""
_TELL_S: Final = 0.25
"""A provider whose headers say something else each time makes no more commands than this."""
_BELIEVED_S: Final = 600
"""How long a limit counts as told: by far less than for how long the fleet believes it."""
_MOST_LEARNED: Final = 200
_MODEL_CHARS: Final = 200
_MOST_MODELS: Final = 1_000


class Pace:
    """The rates of one provider, for one event loop; `run` sends a call to Redis."""

    def __init__(self, provider: Provider, run: Run[Any]) -> None:
        self._provider = provider
        self._run = run
        self._lanes: dict[str, Turns] = {}
        self._by_model: dict[str, Turns | None] = {}
        self._learned: dict[str, Rates] = {}
        self._told: dict[str, Rates] = {}
        self._to_tell: dict[str, Rates] = {}
        self._news = asyncio.Event()
        self._hearings_left = 0
        self._ear: asyncio.Task[None] | None = None

    def is_free(self, model: str) -> bool:
        """Whether nothing limits the rate of a model, as far as is known; it costs no command."""
        self._listen()
        return self._lane(model) is None

    async def turn(self, model: str, tokens: Callable[[], int]) -> int:
        """Return when a request may be sent, with the tokens that it took; first come, first served in a lane.

        `tokens` estimates how many it needs, as late as can be. Where nothing is limited, it takes none.
        """
        while not self.is_free(model) and (lane := self._lane(model)):
            with suppress(DisbandedError):
                return await lane.turn(tokens)
        return 0

    def settle(self, model: str, estimated: int, used: int) -> None:
        """Count the tokens that a request used in place of those that its turn took."""
        lane = self._lane(model)
        if lane is not None and estimated != used:
            lane.correct(used - estimated)

    def learn(self, model: str, stated: Sequence[StatedLimit]) -> None:
        """Take over what an answer's headers say of a model's limits by the minute, for the whole fleet."""
        told = rates_stated(stated) if stated else NO_RATES
        if told in (NO_RATES, self._told.get(model)):
            return
        if model in self._told or (len(self._told) < _MOST_LEARNED and len(model) <= _MODEL_CHARS):
            self._told[model] = self._to_tell[model] = told
            self._know({**self._learned, model: told})
            self._news.set()
            self._listen()

    def void(self) -> None:
        """Give up the times that are reserved, since the provider takes nothing now; who waits asks again."""
        for lane in self._lanes.values():
            lane.void()

    def adopt(self, provider: Provider) -> None:
        """Keep the limits that a changed providers file states; who waits already waits by these."""
        self._provider = provider
        if provider.rate_headers == "none" and self._ear is not None:
            self._ear.cancel()
            self._ear, self._learned = None, {}
        self._by_model.clear()
        for lane in self._lanes.values():
            lane.disband()

    def rates(self) -> Rates:
        """Give the rates that are in force, for display: as stated, or the lowest learned of any model."""
        return in_force(self._provider, self._learned)

    async def aclose(self) -> None:
        """End what goes on; nobody waits any more."""
        if self._ear is not None:
            self._ear.cancel()
            await asyncio.gather(self._ear, return_exceptions=True)
        for lane in self._lanes.values():
            await lane.aclose()

    def _lane(self, model: str) -> Turns | None:
        try:
            return self._by_model[model]
        except KeyError:
            if len(self._by_model) >= _MOST_MODELS:
                self._by_model.clear()
            return self._by_model.setdefault(model, self._find(model))

    def _find(self, model: str) -> Turns | None:
        """Give the lane of a model, with the limits that hold by now for those who wait in it."""
        lane = rate_lane(self._provider, model, self._learned)
        if lane is None:
            return None
        turns = self._lanes.get(lane.name)
        if turns is None:
            turns = self._lanes[lane.name] = Turns(self._provider.name, self._run, lane)
        turns.lane = lane
        return turns

    def _know(self, learned: dict[str, Rates]) -> None:
        if learned != self._learned:
            self._learned = learned
            self._by_model.clear()

    def _listen(self) -> None:
        self._hearings_left = _HEARINGS
        if (self._ear is None or self._ear.done()) and self._provider.rate_headers != "none":
            self._ear = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        """Tell the fleet what was learned here, at once, and hear what others learned, every other second of use."""
        loop = asyncio.get_running_loop()
        forget_at = loop.time() + _BELIEVED_S
        while self._hearings_left:
            self._hearings_left -= 1
            await self._exchange()
            if loop.time() >= forget_at:
                self._told.clear()
                forget_at = loop.time() + _BELIEVED_S
            await asyncio.sleep(_TELL_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _HEAR_S - _TELL_S)
        self._ear = None

    async def _exchange(self) -> None:
        telling, self._to_tell = self._to_tell, {}
        self._news.clear()
        call = rates.learn(
            self._provider.name, [limit for model in telling for limit in _limits(model, telling[model])]
        )
        heard = await patiently(lambda: self._run(call))
        learned: dict[str, Rates] = {}
        for unit, model, per_minute in heard:
            limit = Rates(per_minute) if unit == "requests" else Rates(None, per_minute)
            learned[model] = learned.get(model, NO_RATES).lower(limit)
        self._know({**learned, **self._to_tell})


def _limits(model: str, told: Rates) -> list[Learned]:
    both = (("requests", told.requests_per_minute), ("tokens", told.tokens_per_minute))
    return [Learned(unit, model, limit) for unit, limit in both if limit is not None]
