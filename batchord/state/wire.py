"""Commands on their way to Redis and their answers, in few round trips. Not for what they mean: that is `connection`.

redis-py makes the connections (URL, TLS, password, RESP); its pipelines cost four times the CPU of what is done here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.utils import HIREDIS_AVAILABLE

if HIREDIS_AVAILABLE:  # not where only producers run
    from hiredis import pack_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.connection import AbstractConnection

    from batchord.state.calls import Argument

_MOST_CONNECTIONS: Final = 16


class Wire:
    """Some connections to one Redis, opened when needed; each is used by one sender at a time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._pool: Any = redis.asyncio.ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None)
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._idle: list[AbstractConnection] = []

    async def send(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Send commands together, and give the answer or the error of each; repeats those of a broken connection.

        Raises:
            redis.ConnectionError: there is no server, or it has hung up.
            redis.TimeoutError: it did not answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._room:
                return await self._send(commands)
        except TimeoutError:
            raise redis.TimeoutError(f"no answer within {self._timeout_s:g} s") from None

    async def _send(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        if self._idle:
            with suppress(redis.ConnectionError):
                return await self._exchange(self._idle.pop(), commands)
        return await self._exchange(self._pool.make_connection(), commands)

    async def _exchange(self, connection: Any, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Use a connection, and keep it for the next one if all is well with it."""
        try:
            await connection.connect()
            await connection.send_packed_command(_pack(connection, commands), check_health=False)
            answers = await _read(connection, len(commands))
        except BaseException:
            await connection.disconnect(nowait=True)
            await self.aclose()  # the others are as old, and may be as silent: each would cost a time limit
            raise
        self._idle.append(connection)
        return answers

    async def aclose(self) -> None:
        """Close the connections that nobody uses now."""
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


def _pack(connection: Any, commands: Sequence[Any]) -> Any:
    return list(map(pack_command, commands)) if HIREDIS_AVAILABLE else connection.pack_commands(commands)


async def _read(connection: Any, count: int) -> list[Any]:
    answers = []
    for _ in range(count):
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers
