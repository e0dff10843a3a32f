"""A batch's parts as one stream in the input's order, with what stands in for shards never opened. It only reads."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import msgspec

from batchord.contract import outcome_line
from batchord.state.keys import Shard
from batchord.storage import paths
from workers.shard_file import PartLine, ShardInput, Trace, encode_trace, read_part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from batchord.contract import LineError
    from batchord.state.batches import BatchRecord
    from batchord.storage import Blobs
    from batchord.storage.paths import Part
    from workers.lease import Lease


async def merged(streams: Iterable[AsyncIterator[PartLine]]) -> AsyncIterator[PartLine]:
    """Merge streams that are each in line order. It holds one line of each."""
    heads: list[tuple[int, int, PartLine, AsyncIterator[PartLine]]] = []
    for order, stream in enumerate(streams):
        async for head in stream:
            heads.append((head.line, order, head, stream))
            break
    heapq.heapify(heads)
    while heads:
        _, order, head, stream = heads[0]
        yield head
        following = await anext(stream, None)
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following.line, order, following, stream))


def sealed(blobs: Blobs, record: BatchRecord, parts: Sequence[Part], lease: Lease) -> list[AsyncIterator[PartLine]]:
    """Give one stream for each provider and part, over the shards that were opened and sealed."""
    return [
        _sealed(blobs, [Shard(record.batch.id, provider, number) for number in range(counts.opened)], part, lease)
        for provider, counts in record.shards.items()
        for part in parts
    ]


def unopened(blobs: Blobs, record: BatchRecord, error: LineError, lease: Lease) -> list[AsyncIterator[PartLine]]:
    """Give one stream for each provider, in which each line of its shards never opened ends with `error`."""
    return [
        _unopened(
            blobs,
            [Shard(record.batch.id, provider, number) for number in range(counts.opened, counts.planned)],
            error,
            lease,
        )
        for provider, counts in record.shards.items()
    ]


async def _sealed(blobs: Blobs, shards: Sequence[Shard], part: Part, lease: Lease) -> AsyncIterator[PartLine]:
    for shard in shards:
        await lease.keep()  # many parts may hold no line, so that nothing else would
        async for line in read_part(blobs.stream(paths.shard_part(shard, part))):
            yield line


async def _unopened(blobs: Blobs, shards: Sequence[Shard], error: LineError, lease: Lease) -> AsyncIterator[PartLine]:
    for shard in shards:
        await lease.keep()
        planned = ShardInput(await blobs.get(paths.shard_part(shard, "input")))
        trace = encode_trace(Trace(shard.provider))
        for index in range(len(planned)):
            line = planned.line(index)
            content = outcome_line(shard.batch_id, line.line, line.custom_id, error)
            yield PartLine(line.line, msgspec.Raw(content), trace)
