"""The step that ends a shard, as its chord's callback: its outcomes go from Redis into its output and error parts."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from batchord.errors import BatchordError
from batchord.lifecycle import Outcome
from batchord.state import keys, shards
from batchord.storage import paths
from workers.feed import feed
from workers.lease import alone
from workers.mend import mend
from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.contract import OutcomePart
    from batchord.state.keys import Shard
    from workers.context import Context
    from workers.lease import Lease

_PARTS: Final[tuple[OutcomePart, ...]] = ("output", "errors")
_AT_ONCE: Final = 50
"""Records read from Redis together: with `spill_bytes` the bound on what a seal holds in memory."""


class SealedMeanwhileError(BatchordError):
    """Another seal of the shard has ended it while this one was writing."""


async def seal(context: Context, shard: Shard) -> None:
    """Write the parts of a shard whose lines all have an outcome, free it, and feed the next one.

    A part appears whole or not at all, and any two seals of a shard would write the same, so this may run twice.
    """
    progress = await context.state.run(shards.progress(shard))
    if progress is not None and progress.recorded < progress.lines:
        await mend(context, shard)
        return
    if progress is not None:
        async with alone(context, keys.step_lease(shard.batch_id, f"seal:{shard.provider}:{shard.number}")) as lease:
            if lease is None:
                return
            await patiently(lambda: _write(context, shard, progress.lines, lease))
    await feed(context, shard.batch_id)


async def _write(context: Context, shard: Shard, lines: int, lease: Lease) -> None:
    written: Counter[OutcomePart] = Counter()
    try:
        for part in _PARTS:
            await lease.keep()
            await context.blobs.put(paths.shard_part(shard, part), _part(context, shard, lines, part, written))
    except SealedMeanwhileError:
        return
    await context.state.run(shards.seal(shard, written["output"]))


async def _part(
    context: Context, shard: Shard, lines: int, part: OutcomePart, written: Counter[OutcomePart]
) -> AsyncIterator[bytes]:
    """Give the lines of one part, and count them."""
    for start in range(0, lines, _AT_ONCE):
        indices = range(start, min(start + _AT_ONCE, lines))
        for record in await context.state.run(shards.outcomes(shard, indices)):
            if record is None:
                raise SealedMeanwhileError(f"Shard {shard.gid} was sealed meanwhile.")
            if (record[:1].decode() == Outcome.SUCCEEDED) is (part == "output"):
                written[part] += 1
                yield await _content(context, record[1:]) + b"\n"
        await asyncio.sleep(0)


async def _content(context: Context, content: bytes) -> bytes:
    """Give a record's content, which is in storage where it was too large for Redis."""
    return await context.blobs.get(content[1:].decode()) if content.startswith(b"@") else content
