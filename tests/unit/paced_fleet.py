"""Some workers that send to one provider at its pace, in virtual time, with the real scripts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

from batchord.routing import Provider
from tests.unit import virtual_time
from tests.unit.virtual_time import ClockedState
from workers.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from batchord.errors import BatchordError
    from batchord.state.calls import Call

T = TypeVar("T")
MINUTE_S = 60


def provider(**limits: Any) -> Provider:
    return Provider(name="p", base_url="http://p", **limits)


class Fleet:
    """Some workers' paces for one provider, each `round_trip_s` away from Redis, and when their requests went out."""

    def __init__(self, of: Provider, workers: int = 1, round_trip_s: float = 0.002) -> None:
        self.state = ClockedState()
        self.round_trip_s = round_trip_s
        self.trouble: BatchordError | None = None
        self.calls = 0
        self.sent: list[tuple[float, int]] = []
        self._epoch = self.state.now
        self.paces = [Pace(of, self.run) for _ in range(workers)]

    async def run(self, call: Call[T]) -> T:
        self.calls += 1
        await asyncio.sleep(self.round_trip_s / 2)
        if self.trouble:
            raise self.trouble
        self.state.now = self._epoch + asyncio.get_running_loop().time()
        answer = self.state.run(call)
        await asyncio.sleep(self.round_trip_s / 2)
        return answer

    async def send(self, worker: int = 0, tokens: int = 1, model: str = "m") -> None:
        await self.paces[worker].turn(model, lambda: tokens)
        self.sent.append((asyncio.get_running_loop().time(), tokens))

    async def send_all(self, lines: int, tokens: int = 1) -> None:
        await asyncio.gather(*(self.send(number % len(self.paces), tokens) for number in range(lines)))

    def set_back(self, seconds: float) -> None:
        """Set the clock of Redis back."""
        self._epoch -= seconds

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.sent]

    @property
    def gaps(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.times, self.times[1:], strict=False)]

    def most_in_a_minute(self) -> int:
        return max(sum(n for at, n in self.sent if begin <= at < begin + MINUTE_S) for begin in self.times)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pace in self.paces:
            await pace.aclose()


def play(scene: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        await scene

    virtual_time.run(main)
