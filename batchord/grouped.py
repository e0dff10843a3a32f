"""Many small requests of coroutines as few round trips: while one group is on its way, the next one gathers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class Grouped(Generic[K, V, R]):
    """Sends the values of one key together. `send` takes the groups and gives the answers, both in the same order.

    A group gathers for `gather_s` at least: the round trip costs more CPU than what it carries.
    """

    def __init__(
        self,
        send: Callable[[list[tuple[K, list[V]]]], Awaitable[Sequence[Sequence[R]]]],
        most: int = 500,
        gather_s: float = 0,
    ) -> None:
        self._send = send
        self._most = most
        self._gather_s = gather_s
        self._asked: list[tuple[K, V, asyncio.Future[R]]] = []
        self._sender: asyncio.Task[None] | None = None

    def ask(self, key: K, value: V) -> asyncio.Future[R]:
        """Send a value with the next group; the answer is to be awaited."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._asked.append((key, value, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return answer

    async def flush(self) -> None:
        """Wait until all that was asked so far is answered."""
        if self._sender is not None:
            await asyncio.shield(self._sender)

    async def _send_all(self) -> None:
        while self._asked:
            await asyncio.sleep(self._gather_s)
            taken, self._asked = self._asked[: self._most], self._asked[self._most :]
            await self._send_one(taken)
        self._sender = None

    async def _send_one(self, taken: list[tuple[K, V, asyncio.Future[R]]]) -> None:
        groups: dict[K, tuple[list[V], list[asyncio.Future[R]]]] = {}
        for key, value, answer in taken:
            values, waiting = groups.setdefault(key, ([], []))
            values.append(value)
            waiting.append(answer)
        try:
            answers = await self._send([(key, values) for key, (values, _) in groups.items()])
        except Exception as error:  # noqa: BLE001 (whoever asked gets it)
            for _, _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, waiting), group_answers in zip(groups.values(), answers, strict=True):
            for answer, given in zip(waiting, group_answers, strict=True):
                if not answer.done():
                    answer.set_result(given)
