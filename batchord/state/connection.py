"""The two ways to Redis: `State` for the fleet and the API, `BlockingState` for producers and the command line.

Both send the same calls; the second exists since `submit` must work in programs that have no event loop.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
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
from batchord.state.wire import Wire

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
    TryAgainError,
)
_UNWRITABLE = (OutOfMemoryError, ReadOnlyError)
_UNWRITABLE_WORDS = ("BUSY", "MISCONF", "NOREPLICAS")
"""What an error begins with that has no class of its own: a slow script, a full disk, a lost replica."""

_TIMEOUT_S = 20


class StateError(BatchordError):
    """Redis refused a command for good: the server is too old, or the project has a fault."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _translation(error) from error


def _translation(error: Exception) -> BatchordError:
    if isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED):  # redis-py wraps it on a Unix socket
        return StateError(f"Redis refuses the user or the password of BATCHORD_REDIS_URL, or misses one: {error}")
    if isinstance(error, _PASSING):
        return StateUnavailableError(f"Redis does not answer for now: {error}")
    if isinstance(error, _UNWRITABLE) or str(error).startswith(_UNWRITABLE_WORDS):
        return StateUnavailableError(f"Redis takes no writes for now: {error}")
    return StateError(f"Redis refused a command: {error}")


class State:
    """An asyncio client of Redis, which gives up after `timeout_s`: who can wait longer calls again."""

    def __init__(self, redis_url: str, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = client_url(redis_url)
        self._wire = Wire(self.url, timeout_s)

    async def run(self, call: Call[T]) -> T:
        """Send one call.

        Raises:
            StateUnavailableError: Redis does not answer for now.
        """
        return (await self.run_all([call]))[0]

    async def run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Send many calls in one round trip, not as one transaction; the answers are in the calls' order."""
        if not calls:
            return []
        commands = [call.command for call in calls]
        with _translated():
            answers = await self._wire.send(commands)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                await self._wire.send([("SCRIPT", "LOAD", script.text) for script in Script.loaded.values()])
                answers = await self._wire.send(commands)
            return _read(calls, answers)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._wire.aclose()


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
