"""Where a worker takes and hands in lines: which it is sending now, claimed in Redis, and their records.

The grouping makes a line cost far less than a round trip; the scripts behind it make it happen once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchord.grouped import Grouped
from batchord.state import shards
from batchord.state.keys import Shard
from batchord.state.shards import LineRecord, Verdict
from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.state.calls import Call
    from batchord.state.connection import State


class Desk:
    """The lines that one worker process is sending. Every method waits until Redis has answered."""

    def __init__(self, state: State, worker: str, claim_s: float) -> None:
        self._state = state
        self._worker = worker
        self._claim_s = claim_s
        self._sending: dict[Shard, set[int]] = {}
        self._begin = Grouped[Shard, int, Verdict](self._send_begin)
        self._record = Grouped[Shard, LineRecord, None](self._send_record)

    def is_sending(self, shard: Shard, index: int) -> bool:
        """Whether this process is sending this line already."""
        return index in self._sending.get(shard, ())

    async def begin(self, shard: Shard, index: int) -> Verdict:
        """Ask whether to send a line, now or once more; SEND claims it until `end`."""
        self._sending.setdefault(shard, set()).add(index)
        return await self._begin.ask(shard, index)

    async def record(self, shard: Shard, record: LineRecord) -> None:
        """Record a line's outcome; if it has one already, nothing changes."""
        await self._record.ask(shard, record)

    async def release(self, shard: Shard, index: int) -> None:
        """Give a claim up, since the line goes back to its queue."""
        await self._state.insist(shards.release(shard, self._worker, [index]))

    def end(self, shard: Shard, index: int) -> None:
        """Forget a line that this process is done with."""
        indices = self._sending.get(shard, set())
        indices.discard(index)
        if not indices:
            self._sending.pop(shard, None)

    async def renew(self) -> None:
        """Prolong the claims on all lines that this process is sending."""
        until = time.time() + self._claim_s
        await self._state.run_all([shards.renew(shard, self._worker, until) for shard in self._sending])

    async def _send_begin(self, groups: list[tuple[Shard, list[int]]]) -> Sequence[Sequence[Verdict]]:
        return await patiently(lambda: self._state.run_all(self._begin_calls(groups)))

    def _begin_calls(self, groups: list[tuple[Shard, list[int]]]) -> list[Call[list[Verdict]]]:
        """Give the calls as of now: repeated after an outage with old times, the claims would have run out already."""
        now = time.time()
        until = now + self._claim_s
        return [shards.begin(shard, self._worker, now, until, indices) for shard, indices in groups]

    async def _send_record(self, groups: list[tuple[Shard, list[LineRecord]]]) -> Sequence[Sequence[None]]:
        now = time.time()
        await self._state.insist_all([shards.record(shard, now, records) for shard, records in groups])
        return [[None] * len(records) for _, records in groups]
