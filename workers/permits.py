"""The right to send one request to a provider now: this process' share of the fleet's limit, which may change."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from workers.draining import Draining

_AT_ONCE: Final = 16
"""A gradual limit is met at once up to here."""


class Permits:
    """At most `limit` holders at once, first come, first served: `async with permits: …`. For one event loop.

    If `gradual`, a raised limit is reached by one more with each permit that comes back, so that a provider that has
    fewer places is not met by a burst; and a refusal takes a permit away until the limit is set anew.
    """

    def __init__(self, limit: int, *, gradual: bool = False) -> None:
        self.is_gradual = gradual
        self._given = self._goal = self._limit = limit
        self._held = 0
        self._draining = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def held(self) -> int:
        """How many are held."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(not turn.done() for turn in self._waiting)

    @property
    def limit(self) -> int:
        """How many may be held once a raised limit is reached."""
        return self._goal

    @property
    def kept(self) -> float:
        """Which share of the limit that was set is left after refusals."""
        return self._goal / self._given if self._given else 1.0

    @property
    def most_held(self) -> int:
        """How many may be held before the limit changes: up to it, or those of a higher one; in a drain no new ones."""
        return self._held if self._draining else max(self._held, self._goal)

    def resize(self, limit: int) -> None:
        """Change the limit; holders above a lower one keep theirs until they are done.

        With a limit of none, whoever waits or asks meets `Draining`: others may have the whole limit for good.
        """
        self._given = self._goal = limit
        self._limit = min(limit, max(self._limit, _AT_ONCE)) if self.is_gradual else limit
        if not limit:
            self._turn_away()
        self._wake()

    def refuse(self) -> None:
        """Note that the provider had no place for one of the holders."""
        if self.is_gradual and self._goal > 1:
            self._goal = self._limit = max(1, min(self._limit, self._held) - 1)

    def drain(self) -> None:
        """Give no more permits: whoever waits for one, or asks from now on, meets `Draining`."""
        self._draining = True
        self._turn_away()

    def _turn_away(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(Draining())
        self._waiting.clear()

    def try_take(self) -> bool:
        """Hold one permit if there is one and nobody waits for it."""
        is_free = self._held < self._limit and not self._waiting and not self._draining
        self._held += is_free
        return is_free

    async def take(self) -> None:
        """Hold one permit, once there is one.

        Raises:
            Draining: there will be none here.
        """
        if self._draining or not self._limit:
            raise Draining
        if not self.try_take():
            await self._wait()

    def give_back(self) -> None:
        """Let go of one permit."""
        self._held -= 1
        if self._limit < self._goal:
            self._limit += 1
        self._wake()

    async def __aenter__(self) -> None:
        """Hold one permit, once there is one."""
        await self.take()

    async def __aexit__(self, *_: object) -> None:
        """Give the permit back."""
        self.give_back()

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._held -= 1
            with suppress(ValueError):
                self._waiting.remove(turn)  # it may be long before it is its turn, and many may come and go
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and (self._held < self._limit or self._waiting[0].done()):
            turn = self._waiting.popleft()
            if not turn.done():
                self._held += 1
                turn.set_result(None)


def slots(limit: int) -> int:
    """Give how many lines to hold for so many permits: some more, which are claimed, waiting, or being recorded.

    Not many more for a few permits: what waits here for long calls could be under way in another worker.
    """
    return limit + min(limit + 1, limit // 4 + 16) if limit else 0
