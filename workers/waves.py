"""Lines that wait for a pause's end, let go in order and in waves. Not for when the pause ends."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

_APART_S: Final = 0.05


class Waves:
    """First come, first served: one goes first, then two, then four.

    So a thousand are gone within half a second, but they do not all fall on who asked for a pause a moment ago.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._size, self._next_at = 1, 0.0

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def __len__(self) -> int:
        """How many wait."""
        return sum(not turn.done() for turn in self._waiting)

    def join(self) -> asyncio.Future[bool]:
        """Wait for one's turn; cancelled, it is passed over. True is the turn of who goes alone."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return turn

    def leave(self, turn: asyncio.Future[bool]) -> None:
        """Forget one who has stopped waiting: in a day's pause many may come and go."""
        with suppress(ValueError):
            self._waiting.remove(turn)

    def let_one_go(self) -> bool:
        """Let the first one go alone; False if nobody waits."""
        if not self:
            return False
        self._waiting.popleft().set_result(True)
        return True

    def restart(self) -> None:
        """Begin with one again."""
        self._size = 1

    def release(self, now: float) -> float | None:
        """Let a wave go if its time has come; give the time of the next one, or None if nobody waits any more."""
        if self and now >= self._next_at:
            for _ in range(self._size):
                if self:
                    self._waiting.popleft().set_result(False)
            self._size, self._next_at = self._size * 2, now + _APART_S
        return self._next_at if self else None
