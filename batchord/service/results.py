"""What became of each line of a batch, joined with what it asked for: in the input's order, while it runs and after."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from batchord.contract import LineError
from batchord.errors import BlobNotFoundError, NotFoundError
from batchord.lifecycle import Outcome
from batchord.merge import freely, merged, outcomes_of
from batchord.outcomes import decode_outcome, numbered
from batchord.service import files
from batchord.shard_file import ShardInput, decode_part, read_part
from batchord.state import batches, shards
from batchord.state.keys import Shard
from batchord.storage import paths
from batchord.validation import numbered_lines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from batchord.service.backend import Backend
    from batchord.shard_file import PartLine
    from batchord.state.batches import BatchRecord

LineStatus = Literal["succeeded", "failed", "cancelled", "expired", "pending"]

_WORDS: Final[dict[Outcome, LineStatus]] = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.EXPIRED: "expired",
}
_NULL: Final = msgspec.Raw(b"null")
_AT_ONCE: Final = 50
_TRIES: Final = 5
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """Which results: of the lines after the first `skip`, at most so many of a status and part of custom_id."""

    skip: int = 0
    most: int | None = None
    status: LineStatus | None = None
    search: str = ""

    @property
    def is_filter(self) -> bool:
        """Whether some of the lines may not be wanted."""
        return self.status is not None or bool(self.search)

    def matches(self, row: Row) -> bool:
        """Whether the line is wanted."""
        return self.status in {None, row.status} and self.search.casefold() in row.custom_id.casefold()


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a query goes: `last` counts the batch's lines, and `is_incomplete` says if more follow or may change."""

    last: int
    is_incomplete: bool


class Row(msgspec.Struct, frozen=True):
    """One line of a batch; `line` is its number in the input, `response` JSON."""

    line: int
    custom_id: str
    status: LineStatus
    response: msgspec.Raw = _NULL
    error: LineError | None = None


class _HasBody(msgspec.Struct):
    body: msgspec.Raw = _NULL


_decode_body = msgspec.json.Decoder(_HasBody).decode


async def measure(backend: Backend, record: BatchRecord, query: ResultQuery) -> Extent:
    """Find how far a query goes, before any of it is given.

    Raises:
        NotFoundError: a file of the batch was deleted, or its time is over.
    """
    batch = record.batch
    if _is_in_files(record):
        for file_id in record.files.values():
            await files.find(backend, batch.tenant, file_id)
    total, runs = batch.request_counts.total, not batch.status.is_terminal
    if query.most is None:
        return Extent(max(query.skip, total), is_incomplete=runs)
    last = min(query.skip + query.most, max(query.skip, total))
    if query.is_filter:
        last = await _last_match(backend, record, query, query.most)
    return Extent(last, is_incomplete=runs or last < total)


async def _last_match(backend: Backend, record: BatchRecord, query: ResultQuery, most: int) -> int:
    number = 0
    async with aclosing(_rows(backend, record)) as rows:
        async for row in rows:
            number += 1
            if number > query.skip and query.matches(row):
                most -= 1
                if not most:
                    break
    return max(number, query.skip)


async def give(backend: Backend, record: BatchRecord, query: ResultQuery, extent: Extent) -> AsyncIterator[bytes]:
    """Give the results that were measured, as JSON lines in chunks."""
    bodies, held, number = _Bodies(backend, record.batch.input_file_id), bytearray(), 0
    async with aclosing(_rows(backend, record)) as rows:
        async for row in rows:
            number += 1
            if number > extent.last:
                break
            if number > query.skip and query.matches(row):
                held += _encode(row, await bodies.of(row.line))
            if len(held) >= _CHUNK_BYTES:
                yield bytes(held)
                held.clear()
    yield bytes(held)


def _encode(row: Row, body: msgspec.Raw) -> bytes:
    fields = {
        "custom_id": row.custom_id,
        "line": row.line,
        "status": row.status,
        "input": body,
        "response": row.response,
        "error": row.error,
    }
    return msgspec.json.encode(fields) + b"\n"


class _Bodies:
    """The bodies of the input's lines, asked for in order; null where the input is gone."""

    def __init__(self, backend: Backend, file_id: str) -> None:
        self._lines = _input(backend, file_id)

    async def of(self, line: int) -> msgspec.Raw:
        """Give the body of a line that comes after those asked for before."""
        if line:  # 0 is a line that was lost: nobody knows which
            async for number, raw in self._lines:
                if number == line:
                    return _decode_body(raw).body
        return _NULL


async def _input(backend: Backend, file_id: str) -> AsyncIterator[tuple[int, bytes]]:
    try:
        async for line in numbered_lines(backend.blobs.stream(paths.file(file_id))):
            yield line.number, line.raw or b""
    except BlobNotFoundError:
        return


async def _rows(backend: Backend, record: BatchRecord) -> AsyncGenerator[Row]:
    """Give every line of a batch; where it moves on and its parts go meanwhile, from where it stands then."""
    after = last = -1
    batch_id = record.batch.id
    for _ in range(_TRIES):
        try:
            async for row in merged(await _streams(backend, record)):
                if row.line > after:
                    last = max(last, row.line)
                    yield row
        except BlobNotFoundError:
            after = last
            now = await backend.state.run(batches.read(batch_id))
            if now is None:
                break
            record = now
        else:
            return
    raise NotFoundError(f"The results of batch '{batch_id}' are gone.")


async def _streams(backend: Backend, record: BatchRecord) -> list[AsyncIterator[Row]]:
    if _is_in_files(record):
        return [_known(numbered(backend.blobs, record, part, freely)) for part in ("output", "errors")]
    unsealed = await _unsealed(backend, record)
    numbers = {
        provider: [n for n in range(counts.first, counts.opened) if n not in unsealed[provider]]
        for provider, counts in record.shards.items()
    }
    parts = outcomes_of(backend.blobs, record, numbers, ("output", "errors"), freely)
    return [*map(_known, parts), *(_going(backend, record, *shards) for shards in unsealed.items())]


def _is_in_files(record: BatchRecord) -> bool:
    """Whether all that is known stands in the files of the last round that ended, and nothing in parts."""
    return record.batch.status.is_terminal or not record.has_started


async def _unsealed(backend: Backend, record: BatchRecord) -> dict[str, list[int]]:
    """Give the numbers of each provider's shards that are open, or will be; the record must have been read before."""
    unsealed = {}
    for provider, counts in record.shards.items():
        is_open = await backend.state.run(shards.open_numbers(record.batch.id, provider))
        open_then = {number for number, _ in is_open if number < counts.opened}
        unsealed[provider] = sorted(open_then | set(range(counts.opened, counts.planned)))
    return unsealed


async def _known(lines: AsyncIterator[PartLine]) -> AsyncIterator[Row]:
    async for line in lines:
        yield _row(line)


def _row(line: PartLine) -> Row:
    known = decode_outcome(line.content)
    return Row(line.line, known.custom_id, _WORDS[known.outcome], known.response, known.error)


async def _going(backend: Backend, record: BatchRecord, provider: str, numbers: Iterable[int]) -> AsyncIterator[Row]:
    """Give the lines of shards that were not sealed a moment ago."""
    for number in numbers:
        shard, last = Shard(record.batch.id, provider, number), 0
        planned = ShardInput(await backend.blobs.get(paths.shard_part(shard, "input")))
        for start in range(0, len(planned), _AT_ONCE):
            indices = range(start, min(start + _AT_ONCE, len(planned)))
            recorded = await backend.state.run(shards.outcomes(shard, indices))
            if number < record.shards[provider].opened and not await backend.state.run(shards.progress(shard)):
                async for row in _sealed_since(backend, shard, last):
                    yield row
                break
            for index, kept in zip(indices, recorded, strict=True):
                line = planned.line(index)
                last = line.line
                yield Row(last, line.custom_id, "pending") if kept is None else await _recorded(backend, kept[1:])


async def _sealed_since(backend: Backend, shard: Shard, after: int) -> AsyncIterator[Row]:
    parts = [read_part(backend.blobs.stream(paths.shard_part(shard, part))) for part in ("output", "errors")]
    async for line in merged(parts):
        if line.line > after:
            yield _row(line)


async def _recorded(backend: Backend, content: bytes) -> Row:
    """Give a line by its record, which is in storage where it was too large for Redis."""
    raw = await backend.blobs.get(content[1:].decode()) if content.startswith(b"@") else content
    return _row(decode_part(raw))
