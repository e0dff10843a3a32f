"""Many small requests of coroutines as few round trips: while one group is on its way, the next one gathers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class _Asked(NamedTuple, Generic[K, V, R]):
    key: K
    value: V
    answer: asyncio.Future[R]


class Grouped(Generic[K, V, R]):
    """Sends the values of one key together. `send` takes the groups and gives the answers, both in the same order."""

    def __init__(
        self, send: Callable[[list[tuple[K, list[V]]]], Awaitable[Sequence[Sequence[R]]]], most: int = 500
    ) -> None:
        self._send = send
        self._most = most
        self._asked: list[_Asked[K, V, R]] = []
        self._sender: asyncio.Task[None] | None = None

    async def ask(self, key: K, value: V) -> R:
        """Send a value with the next group and wait for its answer."""
        asked = _Asked[K, V, R](key, value, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await asked.answer

    async def _send_all(self) -> None:
        while self._asked:
            await asyncio.sleep(0)
            taken, self._asked = self._asked[: self._most], self._asked[self._most :]
            await self._send_one(taken)
        self._sender = None

    async def _send_one(self, taken: list[_Asked[K, V, R]]) -> None:
        groups: dict[K, list[_Asked[K, V, R]]] = {}
        for asked in taken:
            groups.setdefault(asked.key, []).append(asked)
        try:
            answers = await self._send([(key, [asked.value for asked in group]) for key, group in groups.items()])
        except Exception as error:  # noqa: BLE001 (whoever asked gets it)
            for asked in taken:
                _settle(asked.answer, error)
            return
        for group, group_answers in zip(groups.values(), answers, strict=True):
            for asked, answer in zip(group, group_answers, strict=True):
                _settle(asked.answer, answer)


def _settle(future: asyncio.Future[R], answer: R | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
