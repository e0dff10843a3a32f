"""That a worker ends: what whoever waits meets then. Not for when it ends, nor what it does first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from batchord.errors import BatchordError


class Draining(BatchordError):  # noqa: N818 (no fault, but an answer)
    """This worker ends, or has no part of the limit: nothing new is sent, and a line that waits goes back."""


async def pause(draining: asyncio.Event, seconds: float) -> None:
    """Wait for so long.

    Raises:
        Draining: the worker began to end meanwhile.
    """
    with suppress(TimeoutError):
        await asyncio.wait_for(draining.wait(), seconds)
        raise Draining
