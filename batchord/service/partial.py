"""What is certain already of the files of a running batch: the longest beginning that the final file will have too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchord.contract import produced_file_id
from batchord.errors import BlobNotFoundError
from batchord.merge import freely, merged, outcomes_of
from batchord.shard_file import encode_attempts, read_first_line, read_lines
from batchord.state import batches, shards
from batchord.state.keys import Shard
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from batchord.contract import FileObject, OutcomePart
    from batchord.service.backend import Backend
    from batchord.shard_file import PartLine
    from batchord.state.batches import BatchRecord


async def lines(backend: Backend, file: FileObject) -> AsyncGenerator[bytes]:
    """Give the lines of a running batch's produced file, without their newlines, in the input's order.

    They end before the first line of the input that is in no sealed shard. If the batch ends meanwhile, they are those
    of the final file.
    """
    given = 0
    try:
        async for line in _sealed_lines(backend, file):
            yield line
            given += 1
    except BlobNotFoundError:  # the parts are gone: the batch has ended
        async for line in _rest(backend, file, given):
            yield line


async def _sealed_lines(backend: Backend, file: FileObject) -> AsyncGenerator[bytes]:
    record = await backend.state.run(batches.read(file.batch_id or ""))
    if record is None or record.batch.status.is_terminal or not record.has_started:
        raise BlobNotFoundError(f"File {file.id} has no parts.")
    parts = _parts(record, file)
    unsealed = await first_unsealed(backend, record)
    cut = min([await _first_line(backend, shard) for shard in unsealed], default=math.inf)
    numbers = {shard.provider: range(record.shards[shard.provider].first, shard.number) for shard in unsealed}
    whole = {provider: range(counts.first, counts.opened) for provider, counts in record.shards.items()}
    async for line in merged(outcomes_of(backend.blobs, record, whole | numbers, parts, freely)):
        if line.line >= cut:
            return
        yield _content(line, parts)


async def first_unsealed(backend: Backend, record: BatchRecord) -> list[Shard]:
    """Give for each provider its first shard that is not sealed, if any; the record must have been read before."""
    unsealed = []
    for provider, counts in record.shards.items():
        open_shards = await backend.state.run(shards.open_numbers(record.batch.id, provider))
        first = min([counts.opened, *(number for number, _ in open_shards)])
        if first < counts.planned:
            unsealed.append(Shard(record.batch.id, provider, first))
    return unsealed


def _parts(record: BatchRecord, file: FileObject) -> Sequence[OutcomePart]:
    batch = record.batch
    names: dict[str, Sequence[OutcomePart]] = {
        produced_file_id(batch.id, "output", batch.round): ("output",),
        produced_file_id(batch.id, "errors", batch.round): ("errors",),
        produced_file_id(batch.id, "attempts", batch.round): ("output", "errors"),
    }
    if file.id not in names:  # a file of an earlier round, which may be there as a whole
        raise BlobNotFoundError(f"File {file.id} has no parts.")
    return names[file.id]


def _content(line: PartLine, parts: Sequence[OutcomePart]) -> bytes:
    return bytes(line.content) if len(parts) == 1 else encode_attempts(line).removesuffix(b"\n")


async def _first_line(backend: Backend, shard: Shard) -> int:
    return await read_first_line(backend.blobs.stream(paths.shard_part(shard, "input")))


async def _rest(backend: Backend, file: FileObject, given: int) -> AsyncGenerator[bytes]:
    number = 0
    try:
        async for line in read_lines(backend.blobs.stream(paths.file(file.id))):
            number += 1
            if number > given:
                yield line
    except BlobNotFoundError:
        return  # the batch ended without such a line, or a retry has other files now
