"""The two ways to Redis: `State` for the fleet and the API, `BlockingState` for producers and the command line.

Both send the same calls; the second exists since `submit` must work in programs that have no event loop.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.retry import Retry

from batchord.errors import BatchordError, StateUnavailableError
from batchord.state.calls import Call, Script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

_REFUSED = (AuthenticationError, AuthorizationError)
_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,  # lost once more after it was loaded
    OSError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_UNAUTHENTICATED = "already authenticated"
"""What redis-py's greeting is answered where a password is missing, as an error of the connection."""
_PASSING_WORDS = ("BUSY", "MISCONF", "NOREPLICAS")
"""What an error begins with that has no class of its own: a slow script, a full disk, a lost replica."""

_TIMEOUT_S = 20
_INSIST_PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class StateError(BatchordError):
    """Redis refused a command for good: the server is too old, or the project has a fault."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _REFUSED as error:
        raise StateError(f"Redis refuses the user or the password of BATCHORD_REDIS_URL: {error}") from error
    except _PASSING as error:
        if _UNAUTHENTICATED in str(error):
            raise StateError(f"Redis wants a password; put it into BATCHORD_REDIS_URL: {error}") from error
        raise StateUnavailableError(f"Redis does not answer for now: {error}") from error
    except RedisError as error:
        if str(error).startswith(_PASSING_WORDS):
            raise StateUnavailableError(f"Redis takes no writes for now: {error}") from error
        raise StateError(f"Redis refused a command: {error}") from error


class State:
    """An asyncio client of Redis. `insist` is for what must not be lost: it waits until Redis is back."""

    def __init__(self, redis_url: str) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            client_url(redis_url),
            max_connections=16,
            timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            retry=AsyncRetry(NoBackoff(), 1),
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)

    async def run(self, call: Call[T]) -> T:
        """Send one call.

        Raises:
            StateUnavailableError: Redis does not answer for now.
        """
        return (await self.run_all([call]))[0]

    async def run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Send many calls in one round trip, not as one transaction; the answers are in the calls' order."""
        with _translated():
            answers = await self._send(calls)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                for script in Script.loaded.values():
                    await self._redis.script_load(script.text)
                answers = await self._send(calls)
            return _read(calls, answers)

    async def insist(self, call: Call[T]) -> T:
        """Send one call, again and again until Redis has answered."""
        return (await self.insist_all([call]))[0]

    async def insist_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Send many calls in one round trip, again and again until Redis has answered."""
        attempt = 0
        while True:
            try:
                return await self.run_all(calls)
            except StateUnavailableError:
                await asyncio.sleep(_INSIST_PAUSES_S[min(attempt, len(_INSIST_PAUSES_S) - 1)])
                attempt += 1

    async def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.command)
        return await pipeline.execute(raise_on_error=False)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._redis.aclose()


class BlockingState:
    """A client of Redis for programs without an event loop; its calls wait for the answer."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(
            client_url(redis_url),
            socket_timeout=_TIMEOUT_S,
            retry=Retry(ExponentialWithJitterBackoff(base=0.1, cap=1), 3),
        )

    def run(self, call: Call[T]) -> T:
        """Send one call.

        Raises:
            StateUnavailableError: Redis does not answer for now.
        """
        return self.run_all([call])[0]

    def run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Send many calls in one round trip, not as one transaction; the answers are in the calls' order."""
        with _translated():
            answers = self._send(calls)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                for script in Script.loaded.values():
                    self._redis.script_load(script.text)
                answers = self._send(calls)
            return _read(calls, answers)

    def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(*call.command)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        return pipeline.execute(raise_on_error=False)

    def close(self) -> None:
        """Close every connection."""
        self._redis.close()


def client_url(redis_url: str) -> str:
    """Give the form of a Redis URL that redis-py takes: Celery's `redis+socket://` is its `unix://`."""
    return redis_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1)


def _read(calls: Sequence[Call[T]], answers: Sequence[Any]) -> list[T]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [call.read(answer) for call, answer in zip(calls, answers, strict=True)]
