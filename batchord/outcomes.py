"""What became of the lines of a batch that has ended, numbered: its produced files as streams in the input's order.

A produced file does not say where in the input its lines stood, but the ids of the outcomes follow from that.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.contract import LineError, line_id, produced_file_id
from batchord.errors import BatchordError, BlobNotFoundError
from batchord.lifecycle import Outcome
from batchord.merge import kept_up
from batchord.shard_file import PartLine, Trace, decode_attempts, encode_trace, read_lines
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from batchord.contract import OutcomePart
    from batchord.merge import Keep
    from batchord.state.batches import BatchRecord
    from batchord.storage import Blobs

_NO_TRACE: Final = encode_trace(Trace(""))
_GAP_MOST: Final = 10_000_000
"""Lines between two outcomes of a file: far past those of any input."""
_AT_ONCE: Final = 1_000


class ForeignOutcomeError(BatchordError):
    """A produced file has a line that is not of its batch, or not in its place."""


class OutcomeLine(msgspec.Struct, frozen=True):
    """A line of an output or error file; `response` is the JSON of it, maybe `null`."""

    id: str
    custom_id: str
    response: msgspec.Raw = msgspec.Raw(b"null")
    error: LineError | None = None

    @property
    def outcome(self) -> Outcome:
        """What became of the line."""
        if self.error is not None:
            return _CODES.get(self.error.code, Outcome.FAILED)
        status = _decode_status(self.response).status_code
        return Outcome.SUCCEEDED if status in _HTTP_OK else Outcome.FAILED


class _Status(msgspec.Struct):
    status_code: int


_CODES: Final = {"batch_expired": Outcome.EXPIRED, "batch_cancelled": Outcome.CANCELLED}
_HTTP_OK: Final = range(200, 300)
_decode_status = msgspec.json.Decoder(_Status).decode
decode_outcome = msgspec.json.Decoder(OutcomeLine).decode


async def numbered(blobs: Blobs, record: BatchRecord, part: OutcomePart, keep: Keep) -> AsyncGenerator[PartLine]:
    """Give the lines of a produced file of the last round that ended; none if it has no such file.

    The number is 0 where the storage had lost the line before it was sent, so that nobody knows which it was. Such
    lines stand between others.

    Raises:
        BlobNotFoundError: the file is gone.
        ForeignOutcomeError: a line of the file is not of this batch, or not in its place.
        msgspec.DecodeError: a line of the file is none of an output or error file.
    """
    batch_id, number = record.batch.id, 0
    lost_id = line_id(batch_id, 0)
    if file_id := record.files.get(part):
        async for raw in read_lines(kept_up(blobs.stream(paths.file(file_id)), keep)):
            outcome_id = decode_outcome(raw).id
            if outcome_id == lost_id:
                yield PartLine(0, msgspec.Raw(raw), _NO_TRACE)
            else:
                number = await _number(batch_id, outcome_id, number)
                yield PartLine(number, msgspec.Raw(raw), _NO_TRACE)


async def traced(blobs: Blobs, record: BatchRecord, part: OutcomePart, keep: Keep) -> AsyncGenerator[PartLine]:
    """Give the same, each with what was tried for it, where that is still known."""
    attempts = _attempts(blobs, record)
    number, trace = 0, _NO_TRACE
    async for line in numbered(blobs, record, part, keep):
        while number < line.line:
            following = await anext(attempts, None)
            number, trace = following or (_GAP_MOST, _NO_TRACE)
        yield PartLine(line.line, line.content, trace if number == line.line else _NO_TRACE)


async def _attempts(blobs: Blobs, record: BatchRecord) -> AsyncIterator[tuple[int, msgspec.Raw]]:
    file_id = produced_file_id(record.batch.id, "attempts", record.produced_round or 0)
    try:
        async for raw in read_lines(blobs.stream(paths.file(file_id))):
            yield decode_attempts(raw)
    except BlobNotFoundError:
        return  # nothing was sent, or the file's time is over


async def _number(batch_id: str, outcome_id: str, after: int) -> int:
    for number in count(after + 1):
        if line_id(batch_id, number) == outcome_id:
            return number
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if number - after > _GAP_MOST:
            break
    raise ForeignOutcomeError(f"The outcome {outcome_id} is none of batch {batch_id}, or is out of order.")
