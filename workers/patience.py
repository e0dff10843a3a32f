"""What a step does while Redis or the storage is away: it waits and tries again. Providers are `retry`'s matter."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, TypeVar

from batchord.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Do something again and again until what it needs is there; every step may run twice, so this is safe."""
    tries = 0
    while True:
        try:
            return await attempt()
        except UnavailableError as error:
            pause_s = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            _LOGGER.warning("%s Trying again in %s s.", error, pause_s)
            await asyncio.sleep(pause_s)
            tries += 1
