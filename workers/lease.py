"""The right to carry out a step of a batch alone, for as long as it is kept up."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from batchord.errors import BatchordError, UnavailableError
from batchord.state import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.state.connection import State

_LIFE_S: Final = 30


class LeaseLostError(BatchordError):
    """Another run of the step has begun meanwhile, so this one ends where it is."""


class Lease:
    """A lease of one step; each run of the step asks in its own name."""

    def __init__(self, state: State, key: str) -> None:
        self._state = state
        self._key = key
        self._holder = uuid4().hex

    async def take(self) -> bool:
        """Take or prolong it; False where another run of the step holds it."""
        return await self._state.run(leases.take(self._key, self._holder, _LIFE_S))

    async def keep(self) -> None:
        """Prolong it.

        Raises:
            LeaseLostError: it ran out, and another run of the step holds it now.
        """
        if not await self.take():
            raise LeaseLostError(f"The lease {self._key} is another's now.")

    async def let_go(self) -> None:
        """End it; where Redis does not answer, time ends it."""
        with suppress(UnavailableError):
            await self._state.run(leases.let_go(self._key, self._holder))


@asynccontextmanager
async def alone(state: State, key: str) -> AsyncIterator[Lease | None]:
    """Hold the lease of a step, or give None where another run of it is under way; one that loses it ends in peace."""
    lease = Lease(state, key)
    if not await lease.take():
        yield None
        return
    with suppress(LeaseLostError):
        try:
            yield lease
        finally:
            await lease.let_go()
