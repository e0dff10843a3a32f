"""What must be on the server's disk before a client is told of it: what comes at once shares a wait for that.

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
    from collections.abc import Sequence

    from batchord.contract import BatchObject
    from batchord.state.calls import Call
    from batchord.state.connection import State

_DISK_WAIT_MS: Final = 5_000


class Entry:
    """Writes what makes a batch the fleet's, and is done when it is on the server's disk."""

    def __init__(self, state: State, disk_wait_ms: int = _DISK_WAIT_MS) -> None:
        self._state = state
        self._disk_wait_ms = disk_wait_ms
        self._grouped = Grouped[None, "Sequence[Call[Any]]", tuple[list[Any], bool]](self._send)

    async def write(self, batch: BatchObject) -> None:
        """Write a new batch; one that is there already is left as it is.

        What is not on the disk in time is taken back, for its client will ask again; where an Idempotency-Key makes
        that the same batch, another may have been told of it already, and it stays.

        Raises:
            StateUnavailableError: Redis does not answer, or did not write in time.
        """
        (*_, is_new), is_durable = await self._grouped.ask(None, batches.enter(batch, time.time()))
        if not is_durable:
            if is_new and batch.once is None:
                await self._state.run_all(batches.take_back(batch))
            raise _late()

    async def send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Send calls in one round trip, and give their answers.

        Raises:
            StateUnavailableError: Redis does not answer, or did not write in time.
        """
        answers, is_durable = await self._grouped.ask(None, calls)
        if not is_durable:
            raise _late()
        return answers

    async def _send(self, groups: list[tuple[None, list[Sequence[Call[Any]]]]]) -> list[list[tuple[list[Any], bool]]]:
        ((_, entries),) = groups
        calls = [call for entry in entries for call in entry]
        try:
            *answers, is_durable = await self._state.run_all([*calls, batches.durable(self._disk_wait_ms)])
        except StateError:  # a server without an append-only file keeps nothing on disk, as its operator chose
            answers, is_durable = await self._state.run_all(calls), True
        rest = iter(answers)
        return [[([next(rest) for _ in entry], is_durable) for entry in entries]]


def _late() -> StateUnavailableError:
    return StateUnavailableError("Redis did not write to its disk in time.")
