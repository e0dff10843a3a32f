"""How a line takes the answer of an earlier one that asks for the same. Which lines do is `originals`' to find.

A copy waits without a permit while its original is under way. It is sent itself where the original got no HTTP answer,
or nobody seems to send it, so that no wait is for ever.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.contract import Answer
from batchord.errors import BlobNotFoundError
from batchord.grouped import Grouped
from batchord.outcomes import decode_outcome
from batchord.shard_file import decode_part
from batchord.state import shards
from workers.draining import pause
from workers.line import Settled
from workers.patience import patiently
from workers.sealed import SealedShards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.shard_file import Original, PartLine
    from batchord.state.connection import State
    from batchord.state.keys import Shard
    from batchord.storage import Blobs
    from workers.context import Context
    from workers.line import LineUnderWay

_PATIENCE_S: Final = 10.0
"""For how long nobody may be sending an original before its copies go on without it: its message may be lost."""
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_AT_ONCE: Final = 50
"""Records read from Redis together: with `spill_bytes` the bound on what they hold in memory."""
_GATHER_S: Final = 0.002

_read_answer: Final = msgspec.json.Decoder(Answer).decode


async def answer(context: Context, line: LineUnderWay) -> Settled | None:
    """Wait for what becomes of a copy's original, and give it; None where the line is to be sent, or may not be.

    Raises:
        Draining: the worker ends.
    """
    original = line.planned.original
    if original is None or not line.may_be_sent:
        return None
    watch = context.watches.watch(line.shard._replace(number=original.shard), original)
    while line.may_be_sent and not await line.waits_for(context, watch):
        pass
    return watch.result() if line.may_be_sent else None


class Watches:
    """The originals for whose answers lines of this process wait, each looked for once however many they are."""

    def __init__(self, state: State, blobs: Blobs, draining: asyncio.Event, claim_s: float) -> None:
        self._state = state
        self._blobs = blobs
        self._draining = draining
        self._claim_s = claim_s
        self._sealed = SealedShards(blobs)
        self._grouped = Grouped["Shard", int, bytes](self._look, _AT_ONCE, _GATHER_S)
        self._under_way: dict[tuple[Shard, int], asyncio.Task[Settled | None]] = {}

    def watch(self, shard: Shard, original: Original) -> asyncio.Task[Settled | None]:
        """Wait for the answer to a line of a shard, in a task for all who wait; None where there will be none.

        Raises:
            Draining: in the task, if the worker ends.
        """
        key = (shard, original.index)
        if key not in self._under_way:
            task = asyncio.create_task(self._settled(shard, original))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        return self._under_way[key]

    def _end(self, key: tuple[Shard, int], done: asyncio.Task[Settled | None]) -> None:
        """Forget a watch; nobody may be left to hear of its error, a drain."""
        del self._under_way[key]
        if not done.cancelled():
            done.exception()

    async def aclose(self) -> None:
        """End what is under way."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _settled(self, shard: Shard, original: Original) -> Settled | None:
        outcome = await self._outcome(shard, original)
        return None if outcome is None or outcome.line != original.line else _as_answered(outcome)

    async def _outcome(self, shard: Shard, original: Original) -> PartLine | None:
        """Wait until a line has its outcome; None where nobody has been sending it for too long."""
        pause_s, unclaimed_s = _FIRST_PAUSE_S, 0.0
        while not self._sealed.has(shard) and (found := await self._grouped.ask(shard, original.index)) != b"sealed":
            if found not in {b"claimed", b"unclaimed"}:
                with suppress(BlobNotFoundError):  # sealed meanwhile, and its large records are gone
                    return decode_part(await self._content(found[1:]))
            unclaimed_s = unclaimed_s + pause_s if found == b"unclaimed" else 0.0
            if unclaimed_s > _PATIENCE_S:
                return None
            await pause(self._draining, pause_s)
            pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
        return await self._sealed.outcome(shard, original.line)

    async def _look(self, groups: list[tuple[Shard, list[int]]]) -> Sequence[Sequence[bytes]]:
        calls = [shards.look(shard, self._claim_s, indices) for shard, indices in groups]
        return await patiently(lambda: self._state.run_all(calls))

    async def _content(self, content: bytes) -> bytes:
        """Give a record's content, which is in storage where it was too large for Redis."""
        if not content.startswith(b"@"):
            return content
        return await patiently(lambda: self._blobs.get(content[1:].decode()))


def _as_answered(outcome: PartLine) -> Settled | None:
    """Give what an original's outcome means for its copies: an HTTP answer of any kind is theirs too."""
    told = decode_outcome(outcome.content)
    if told.error is not None:
        return None
    return Settled(told.outcome, _read_answer(told.response), copy_of=outcome.line)
