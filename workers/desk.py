"""Where a worker takes and hands in lines: which it is sending now, claimed in Redis, and their records.

The grouping makes a line cost far less than a round trip; the scripts behind it make it happen once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from batchord.grouped import Grouped
from batchord.state import leases, shards
from batchord.state.calls import Call
from batchord.state.keys import Shard
from batchord.state.shards import Contact, LineRecord, Missing, Verdict
from workers.patience import patiently

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from batchord.state.connection import State

_GATHER_S: Final = 0.002
_VERDICT_LIFE_S: Final = 1.0
"""For how long a verdict to send is good: far less than a claim holds, and soon enough for who cancels a batch."""
_Group: TypeAlias = tuple[Callable[[Shard, list[Any]], Call[list[Any]]], Shard]
"""What is asked about lines, and the shard that they are of."""


class Desk:
    """The lines that one worker process is sending. What is asked for is done once Redis has answered."""

    def __init__(self, state: State, worker: str, claim_s: float) -> None:
        self._state = state
        self._worker = worker
        self._claim_s = claim_s
        self.verdict_life_s = min(_VERDICT_LIFE_S, claim_s / 2)
        self.doubt_s = claim_s / 4
        self._contact = Contact()
        self._sending: dict[Shard, set[int]] = {}
        self._grouped = Grouped[_Group, Any, Any](self._send, gather_s=_GATHER_S)

    def is_sending(self, shard: Shard, index: int) -> bool:
        """Whether this process is sending this line already."""
        return index in self._sending.get(shard, ())

    async def begin(self, shard: Shard, index: int) -> Verdict:
        """Ask whether to send a line, now or once more; a verdict to send claims it until `end`."""
        self._sending.setdefault(shard, set()).add(index)
        verdict: Verdict = await self._grouped.ask((self._begin, shard), index)
        return verdict

    async def record(self, shard: Shard, record: LineRecord) -> None:
        """Record a line's outcome; if it has one already, or is another worker's by now, nothing changes."""
        await self._grouped.ask((self._record, shard), record)

    def release(self, shard: Shard, index: int) -> asyncio.Future[None]:
        """Give a claim up, since the line goes back to its queue; it is done even if nobody awaits it."""
        return self._grouped.ask((self._release, shard), index)

    def end(self, shard: Shard, index: int) -> None:
        """Forget a line that this process is done with."""
        indices = self._sending.get(shard, set())
        indices.discard(index)
        if not indices:
            self._sending.pop(shard, None)

    async def missing(self, shard: Shard) -> Missing:
        """Give the lines of an open shard that have no outcome and that nobody sends."""
        return await self._state.run(shards.missing(shard, self._claim_s, self._contact))

    async def beat(self) -> None:
        """Say that this worker lives, and prolong its claims on all lines that it is sending."""
        beat: Call[Any] = leases.beat(self._worker, self._claim_s)
        now, *_ = await self._state.run_all([beat, *(shards.renew(shard, self._worker) for shard in self._sending)])
        self._contact = self._contact.prolonged(now, self._claim_s)

    async def flush(self) -> None:
        """Wait until Redis has answered all that was asked so far."""
        await self._grouped.flush()

    async def _send(self, groups: list[tuple[_Group, list[Any]]]) -> Sequence[Sequence[Any]]:
        return await patiently(lambda: self._state.run_all([ask(shard, values) for (ask, shard), values in groups]))

    def _begin(self, shard: Shard, indices: list[int]) -> Call[list[Verdict]]:
        return shards.begin(shard, self._worker, self._claim_s, self._contact, indices)

    def _record(self, shard: Shard, records: list[LineRecord]) -> Call[list[None]]:
        call = shards.record(shard, self._worker, self._claim_s, records)
        return Call(call.command, lambda _: [None] * len(records))

    def _release(self, shard: Shard, indices: list[int]) -> Call[list[None]]:
        call = shards.release(shard, self._worker, indices)
        return Call(call.command, lambda _: [None] * len(indices))
