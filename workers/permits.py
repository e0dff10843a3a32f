"""The right to send one request to a provider now: this process' share of the fleet's limit, which may change."""

from __future__ import annotations

import asyncio
from collections import deque

from batchord.errors import BatchordError


class Draining(BatchordError):  # noqa: N818 (no fault, but an answer)
    """This worker ends, or has no part of the limit: nothing new is sent, and a line that waits goes back."""


class Permits:
    """At most `limit` holders at once, first come, first served: `async with permits: …`. For one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._draining = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def most_held(self) -> int:
        """How many may be held before the limit changes: up to it, or those of a higher one; in a drain no new ones."""
        return self._held if self._draining else max(self._held, self._limit)

    def resize(self, limit: int) -> None:
        """Change the limit; holders above a lower one keep theirs until they are done.

        With a limit of none, whoever waits or asks meets `Draining`: others may have the whole limit for good.
        """
        self._limit = limit
        if not limit:
            self._turn_away()
        self._wake()

    def drain(self) -> None:
        """Give no more permits: whoever waits for one, or asks from now on, meets `Draining`."""
        self._draining = True
        self._turn_away()

    def _turn_away(self) -> None:
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(Draining())
        self._waiting.clear()

    async def __aenter__(self) -> None:
        """Hold one permit, once there is one."""
        if self._draining or not self._limit:
            raise Draining
        if self._held < self._limit and not self._waiting:
            self._held += 1
        else:
            await self._wait()

    async def __aexit__(self, *_: object) -> None:
        """Give the permit back."""
        self._held -= 1
        self._wake()

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._held -= 1
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
