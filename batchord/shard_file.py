"""How a shard's parts are written: one line of JSON for each line, its number first, so that parts can be merged.

An input part begins with a header, then has `[line, custom_id, body, is_named, original]`; output and error parts have
`[line, {the contract's line}, {what was tried}]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from batchord.contract import outcome_line
from batchord.validation import LineSplitter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from batchord.contract import Answer, LineError


class Header(msgspec.Struct, frozen=True):
    """What is the same for all lines of a shard."""

    endpoint: str


class Original(msgspec.Struct, frozen=True, array_like=True):
    """The first line that asks for something: its shard's number and its index there, and its number in the input."""

    shard: int
    index: int
    line: int


class PlannedLine(msgspec.Struct, frozen=True, array_like=True):
    """A line as the plan leaves it: `body` is what the provider gets, to the byte, unless it names the model otherwise.

    `is_named` says that the line itself named its provider. One with an `original`, which is at the same provider, asks
    for the same and may take its answer.
    """

    line: int
    custom_id: str
    body: msgspec.Raw
    is_named: bool = False
    original: Original | None = None


class PartLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of an output or error part."""

    line: int
    content: msgspec.Raw
    trace: msgspec.Raw


class Attempt(msgspec.Struct, frozen=True):
    """One request that was sent for a line: the status of its answer, or the code of its failure; how long that took.

    `ttfb_ms` is None where no answer came, `provider` where it is the one that the trace names.
    """

    result: int | str
    latency_ms: float
    ttfb_ms: float | None = None
    wait_s: float = 0.0
    provider: str | None = None


class Trace(msgspec.Struct, frozen=True):
    """What was tried for a line, in order; `provider` is the one that was asked last.

    Nothing was for a copy: it took the answer of the line with the number `copy_of`.
    """

    provider: str
    attempts: Sequence[Attempt] = ()
    copy_of: int | msgspec.UnsetType = msgspec.UNSET


class _Attempted(msgspec.Struct):
    """The number of a line of an attempts file."""

    line: int


_read_planned = msgspec.json.Decoder(PlannedLine).decode
decode_part = msgspec.json.Decoder(PartLine).decode
_read_header = msgspec.json.Decoder(Header).decode
_read_attempted = msgspec.json.Decoder(_Attempted).decode


class ShardInput:
    """A shard's planned lines, kept as bytes and decoded one by one."""

    def __init__(self, content: bytes) -> None:
        header, *self._lines = content.removesuffix(b"\n").split(b"\n")
        self.endpoint = _read_header(header).endpoint
        self.size_bytes = len(content)

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, index: int) -> PlannedLine:
        """Give the line at an index of the shard, from 0."""
        return _read_planned(self._lines[index])


def encode_header(endpoint: str) -> bytes:
    """Give the first line of an input part."""
    return msgspec.json.encode(Header(endpoint)) + b"\n"


def encode_planned(line: PlannedLine) -> bytes:
    """Give one line of an input part."""
    return msgspec.json.encode(line) + b"\n"


def encode_outcome(batch_id: str, planned: PlannedLine, result: Answer | LineError, trace: Trace) -> bytes:
    """Give one line of an output or error part, without its newline."""
    content = outcome_line(batch_id, planned.line, planned.custom_id, result)
    return msgspec.json.encode(PartLine(planned.line, msgspec.Raw(content), encode_trace(trace)))


def encode_trace(trace: Trace) -> msgspec.Raw:
    """Give what was tried as JSON."""
    return msgspec.Raw(msgspec.json.encode(trace))


def encode_part(line: PartLine) -> bytes:
    """Give one line of an output or error part, with its newline."""
    return msgspec.json.encode(line) + b"\n"


def encode_attempts(line: PartLine) -> bytes:
    """Give a line of the attempts file: the line's number, and what was tried for it."""
    return b'{"line":%d,%b\n' % (line.line, bytes(line.trace)[1:])


def decode_attempts(raw: bytes) -> tuple[int, msgspec.Raw]:
    """Read what `encode_attempts` wrote."""
    return _read_attempted(raw).line, msgspec.Raw(b"{" + raw.partition(b",")[2])


async def read_part(chunks: AsyncIterator[bytes]) -> AsyncIterator[PartLine]:
    """Read an output or error part, streaming."""
    async for raw in read_lines(chunks):
        yield decode_part(raw)


async def read_first_line(chunks: AsyncIterator[bytes]) -> int:
    """Give the number of the first line of an input part."""
    lines = read_lines(chunks)
    await anext(lines)
    return _read_planned(await anext(lines)).line


async def read_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Give the lines of a file of our own, streaming, however long they are, without their newlines."""
    splitter = LineSplitter(sys.maxsize)
    async for chunk in chunks:
        for line in splitter.feed(chunk):
            yield line.raw or b""
