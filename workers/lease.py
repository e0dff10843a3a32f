"""The right to carry out a step of a batch alone, for as long as it is kept up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from batchord.errors import BatchordError, UnavailableError
from batchord.state import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.state.connection import State
    from workers.context import Context

_RENEWALS_A_LIFE: Final = 3


class LeaseLostError(BatchordError):
    """Another run of the step has begun meanwhile, so this one ends where it is."""


class Lease:
    """A lease of one step; each run of the step asks in its own name.

    It lives as short as the claims of a worker, so that the step of one that was killed is soon taken over.
    """

    def __init__(self, state: State, key: str, life_s: float) -> None:
        self._state = state
        self._key = key
        self._life_s = life_s
        self._holder = uuid4().hex

    async def take(self) -> bool:
        """Take or prolong it; False where another run of the step holds it."""
        return await self._state.run(leases.take(self._key, self._holder, self._life_s))

    async def keep(self) -> None:
        """Prolong it.

        Raises:
            LeaseLostError: it ran out, and another run of the step holds it now.
        """
        if not await self.take():
            raise LeaseLostError(f"The lease {self._key} is another's now.")

    async def renew(self, is_over: asyncio.Event) -> None:
        """Prolong it again and again: a step may wait for the storage for longer than the lease lives."""
        while not is_over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._life_s / _RENEWALS_A_LIFE):
                    await is_over.wait()
                return
            with suppress(UnavailableError):
                await self.take()

    async def let_go(self) -> None:
        """End it; where Redis does not answer, time ends it."""
        with suppress(UnavailableError):
            await self._state.run(leases.let_go(self._key, self._holder))


@asynccontextmanager
async def alone(context: Context, key: str) -> AsyncIterator[Lease | None]:
    """Hold the lease of a step, or give None where another run of it is under way; one that loses it ends in peace."""
    lease, is_over = Lease(context.state, key, context.settings.claim_s), asyncio.Event()
    if not await lease.take():
        yield None
        return
    renewing = asyncio.create_task(lease.renew(is_over))
    with suppress(LeaseLostError):
        try:
            yield lease
        finally:
            is_over.set()
            await asyncio.wait([renewing])  # or it might take the lease once more after its end
            await lease.let_go()
