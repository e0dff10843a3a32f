"""What Redis tells the fleet the moment that it happens. Not to be relied upon: what must be known is read as well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from batchord.state.connection import State

_AGAIN_S: Final = 1.0
_SILENCE_S: Final = 60.0
"""After how long without a message the connection is made anew, for one may break without a word."""


async def messages(state: State, channel: str) -> AsyncGenerator[bytes | None, None]:
    """Give the messages of a channel as they come, for ever; None each time that some may have been missed."""
    while True:
        client = redis.asyncio.Redis.from_url(state.url, socket_timeout=None, retry=Retry(NoBackoff(), 0))
        try:
            async with client, client.pubsub() as listener:
                await listener.subscribe(channel)
                while message := await listener.get_message(timeout=_SILENCE_S):
                    yield message["data"] if message["type"] == "message" else None
        except (RedisError, OSError):
            await asyncio.sleep(_AGAIN_S)
