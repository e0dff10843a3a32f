"""A batch's parts as one stream in the input's order, with what stands in for shards never opened. It only reads."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from batchord.contract import outcome_line
from batchord.shard_file import PartLine, ShardInput, Trace, encode_trace, read_part
from batchord.state.keys import Shard
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence

    from batchord.contract import LineError, OutcomePart
    from batchord.state.batches import BatchRecord
    from batchord.storage import Blobs

Keep = Callable[[], Awaitable[None]]
"""What is called again and again while a merge goes on: it keeps the reader's lease."""


async def freely() -> None:
    """Keep nothing: for a reader without a lease."""


async def kept_up(chunks: AsyncIterator[bytes], keep: Keep) -> AsyncIterator[bytes]:
    """Give chunks on, and keep the reader's lease with each: of what they hold maybe nothing is ever written."""
    async for chunk in chunks:
        await keep()
        yield chunk


class HasLine(Protocol):
    """What can be merged: something that is said of a line of the input."""

    @property
    def line(self) -> int:
        """The line's number."""


L = TypeVar("L", bound=HasLine)


async def merged(streams: Iterable[AsyncIterator[L]]) -> AsyncGenerator[L]:
    """Merge streams that are each in line order. It holds one line of each."""
    heads: list[tuple[int, int, L, AsyncIterator[L]]] = []
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


def sealed(
    blobs: Blobs, record: BatchRecord, parts: Sequence[OutcomePart], keep: Keep
) -> list[AsyncIterator[PartLine]]:
    """Give one stream for each provider and part, over the shards that were opened and sealed, and the kept parts."""
    numbers = {provider: range(counts.first, counts.opened) for provider, counts in record.shards.items()}
    return outcomes_of(blobs, record, numbers, parts, keep)


def outcomes_of(
    blobs: Blobs,
    record: BatchRecord,
    numbers: Mapping[str, Iterable[int]],
    parts: Sequence[OutcomePart],
    keep: Keep,
) -> list[AsyncIterator[PartLine]]:
    """Give one stream for each provider and part, over these sealed shards, and what a retry kept of earlier rounds."""
    batch = record.batch
    streams = [
        _sealed(blobs, [Shard(batch.id, provider, number) for number in sealed_numbers], part, keep)
        for provider, sealed_numbers in numbers.items()
        for part in parts
    ]
    if batch.round:
        streams += [read_part(blobs.stream(paths.kept(batch.id, batch.round, part))) for part in parts]
    return streams


def unopened(blobs: Blobs, record: BatchRecord, error: LineError, keep: Keep) -> list[AsyncIterator[PartLine]]:
    """Give one stream for each provider, in which each line of its shards never opened ends with `error`."""
    return [
        _unopened(
            blobs,
            [Shard(record.batch.id, provider, number) for number in range(counts.opened, counts.planned)],
            error,
            keep,
        )
        for provider, counts in record.shards.items()
    ]


async def _sealed(blobs: Blobs, shards: Sequence[Shard], part: OutcomePart, keep: Keep) -> AsyncIterator[PartLine]:
    for shard in shards:
        await keep()  # many parts may hold no line, so that nothing else would
        async for line in read_part(blobs.stream(paths.shard_part(shard, part))):
            yield line


async def _unopened(blobs: Blobs, shards: Sequence[Shard], error: LineError, keep: Keep) -> AsyncIterator[PartLine]:
    for shard in shards:
        await keep()
        planned = ShardInput(await blobs.get(paths.shard_part(shard, "input")))
        trace = encode_trace(Trace(shard.provider))
        for index in range(len(planned)):
            line = planned.line(index)
            content = outcome_line(shard.batch_id, line.line, line.custom_id, error)
            yield PartLine(line.line, msgspec.Raw(content), trace)
