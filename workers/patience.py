"""What a step does while Redis or the storage is away: it waits and tries again. Providers are `retry`'s matter."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, TypeVar

from batchord.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_QUIET_S: Final = 10.0
"""For how long nothing is logged of a trouble that was logged: hundreds of lines may wait for its end."""

_logged_at: dict[type[UnavailableError], float] = {}


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Do something again and again until what it needs is there; every step may run twice, so this is safe."""
    tries = 0
    while True:
        try:
            return await attempt()
        except UnavailableError as error:
            _log(error)
            await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1


def _log(error: UnavailableError) -> None:
    now = time.monotonic()
    if now - _logged_at.get(type(error), -_QUIET_S) >= _QUIET_S:
        _logged_at[type(error)] = now
        _LOGGER.warning("%s; what needs it waits and tries again.", error)
