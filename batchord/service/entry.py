"""New batches on their way to Redis: those that come at once share a round trip and a wait for the server's disk.

The wait takes up to a second where the append-only file is written once a second; one connection does it for all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from batchord.errors import StateUnavailableError
from batchord.grouped import Grouped
from batchord.state import batches
from batchord.state.connection import StateError

if TYPE_CHECKING:
    from batchord.contract import BatchObject
    from batchord.state.calls import Call
    from batchord.state.connection import State

_DISK_WAIT_MS: Final = 5_000


class Entry:
    """Writes new batches; a batch that is there already is left as it is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._grouped = Grouped[None, list["Call[Any]"], None](self._write)

    async def write(self, batch: BatchObject) -> None:
        """Write a batch and wait until it is on the server's disk; only then is it the fleet's.

        Raises:
            StateUnavailableError: Redis does not answer, or did not write in time.
        """
        await self._grouped.ask(None, batches.enter(batch, time.time()))

    async def _write(self, groups: list[tuple[None, list[list[Call[Any]]]]]) -> list[list[None]]:
        ((_, entries),) = groups
        calls = [call for entry in entries for call in entry]
        try:
            *_, is_durable = await self._state.run_all([*calls, batches.durable(_DISK_WAIT_MS)])
        except StateError:  # a server without an append-only file keeps nothing on disk, as its operator chose
            await self._state.run_all(calls)
            is_durable = True
        if not is_durable:
            raise StateUnavailableError("Redis did not write a new batch to its disk in time.")
        return [[None] * len(entries)]
