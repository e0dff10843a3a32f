"""The right to carry out a step of a batch alone, for as long as it is kept up."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from batchord.errors import UnavailableError
from batchord.state import keys, leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.state.connection import State

_LIFE_S: Final = 30


class Lease:
    """A lease of one step of one batch; each run of the step asks in its own name."""

    def __init__(self, state: State, batch_id: str, step: str) -> None:
        self._state = state
        self._key = keys.step_lease(batch_id, step)
        self._holder = uuid4().hex

    async def keep(self) -> bool:
        """Take or prolong it; False where another run of the step holds it."""
        return await self._state.run(leases.take(self._key, self._holder, _LIFE_S))

    async def let_go(self) -> None:
        """End it; where Redis does not answer, time ends it."""
        with suppress(UnavailableError):
            await self._state.run(leases.let_go(self._key, self._holder))


@asynccontextmanager
async def alone(state: State, batch_id: str, step: str) -> AsyncIterator[Lease | None]:
    """Hold the lease of a step, or give None where another run of it is under way."""
    lease = Lease(state, batch_id, step)
    if not await lease.keep():
        yield None
        return
    try:
        yield lease
    finally:
        await lease.let_go()
