"""Cuts a stream of bytes into numbered lines, in bounded memory and linear time. It knows nothing of JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

MAX_LINE_BYTES: Final = 64 * 1024 * 1024

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SLACK_BYTES: Final = len(_BYTE_ORDER_MARK) + len(b"\r")
"""What a line may hold before it is trimmed, on top of its limit."""


class Line(NamedTuple):
    """A line that is not blank: its number, from 1, and its bytes without the ending, or None if it was too long."""

    number: int
    raw: bytes | None


class LineSplitter:
    r"""A push parser: give it chunks cut anywhere, and it gives the lines that ended in each.

    Only `\n` and `\r\n` end a line, so that a U+2028 in a string does not. A byte-order mark at the start is dropped.
    Blank lines are counted, as an editor counts them, and not given. The bytes of a line of more than `max_line_bytes`
    are dropped as they come.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._number = 0
        self._held = bytearray()
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """Give the lines that end in this chunk."""
        *ends, rest = chunk.split(b"\n")
        lines = [line for end in ends if (line := self._end_line(end)) is not None]
        self._hold(rest)
        return lines

    def close(self) -> list[Line]:
        """Give the last line, where the stream does not end in a newline."""
        line = self._end_line(b"")
        return [] if line is None else [line]

    def _hold(self, piece: bytes) -> None:
        self._held_bytes += len(piece)
        if self._held_bytes <= self._max_line_bytes + _SLACK_BYTES:
            self._held += piece

    def _end_line(self, end: bytes) -> Line | None:
        self._number += 1
        raw = self._joined(end) if self._held_bytes else end
        if raw is None:
            return Line(self._number, None)
        if self._number == 1:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        raw = raw.removesuffix(b"\r")
        if len(raw) > self._max_line_bytes:
            return Line(self._number, None)
        return None if not raw or raw.isspace() else Line(self._number, raw)

    def _joined(self, end: bytes) -> bytes | None:
        """Give what is held and this end of it, as one; None if its bytes were dropped."""
        self._hold(end)
        raw = bytes(self._held) if self._held_bytes == len(self._held) else None
        self._held.clear()
        self._held_bytes = 0
        return raw


async def numbered_lines(chunks: AsyncIterator[bytes], max_line_bytes: int = sys.maxsize) -> AsyncGenerator[Line]:
    """Give the lines of a stream, however long they are unless a bound is named."""
    splitter = LineSplitter(max_line_bytes)
    async for chunk in chunks:
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.close():
        yield line


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the lines of a file of our own or one that was accepted, however long they are, without their endings."""
    splitter = LineSplitter(sys.maxsize)
    for chunk in chunks:
        yield from (line.raw for line in splitter.feed(chunk) if line.raw is not None)
    yield from (line.raw for line in splitter.close() if line.raw is not None)
