"""The bytes of a file: whole, a span of them, or line by line. In constant memory."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.errors import BlobNotFoundError, InvalidRequestError
from batchord.service import files, partial
from batchord.storage import paths
from batchord.validation import numbered_lines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from batchord.contract import FileObject
    from batchord.service.backend import Backend
    from batchord.validation import Line

_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class LineQuery:
    """Which lines are wanted: those after line `skip`, at most so many, whose custom_id has `search` in it."""

    skip: int = 0
    most: int | None = None
    search: str = ""

    def matches(self, line: bytes) -> bool:
        """Whether the line's custom_id has what is searched for, in either case."""
        if not self.search:
            return True
        try:
            custom_id = _CUSTOM_ID.decode(line).custom_id
        except msgspec.DecodeError:
            return False
        return isinstance(custom_id, str) and self.search.casefold() in custom_id.casefold()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a query gives: lines up to `last_line` of the file, and whether more lines follow or may still come."""

    size_bytes: int
    last_line: int
    is_incomplete: bool


class _HasCustomId(msgspec.Struct):
    custom_id: object = None


_CUSTOM_ID: Final = msgspec.json.Decoder(_HasCustomId)


def is_growing(file: FileObject) -> bool:
    """Whether a batch that runs still writes the file: what is certain so far can be read by lines alone."""
    return file.status == "uploaded"


async def whole(backend: Backend, file: FileObject, span: tuple[int, int] | None = None) -> AsyncIterator[bytes]:
    """Give a file's bytes, or those from one offset up to, not including, another.

    Raises:
        NotFoundError: they were deleted meanwhile. Said before this returns, not while the bytes are given.
    """
    try:
        await backend.blobs.size(paths.file(file.id))
    except BlobNotFoundError:
        raise files.not_found(file.id) from None
    return backend.blobs.stream(paths.file(file.id), span=span)


async def measure(backend: Backend, file: FileObject, query: LineQuery) -> Excerpt:
    """Find what a query gives, before any of it is given.

    Raises:
        InvalidRequestError: a line is too long to be read by lines.
        NotFoundError: the file was deleted meanwhile.
    """
    size_bytes, last_line, found = 0, query.skip, 0
    async with aclosing(_after(backend, file, query.skip)) as lines:
        async for number, raw in lines:
            if found == query.most:
                return Excerpt(size_bytes, last_line, is_incomplete=True)
            last_line = number
            if query.matches(raw):
                size_bytes += len(raw) + 1
                found += 1
    return Excerpt(size_bytes, last_line, is_incomplete=is_growing(file))


async def excerpt(backend: Backend, file: FileObject, query: LineQuery, measured: Excerpt) -> AsyncIterator[bytes]:
    """Give the lines that were measured."""
    held = bytearray()
    async with aclosing(_after(backend, file, query.skip)) as lines:
        async for number, raw in lines:
            if number > measured.last_line:
                break
            if query.matches(raw):
                held += raw + b"\n"
            if len(held) >= _CHUNK_BYTES:
                yield bytes(held)
                held.clear()
    yield bytes(held)


async def _after(backend: Backend, file: FileObject, skip: int) -> AsyncGenerator[tuple[int, bytes]]:
    """Give the lines after line `skip` with their numbers, from 1."""
    numbered = _growing(backend, file) if is_growing(file) else _stored(backend, file)
    async with aclosing(numbered):
        async for number, raw in numbered:
            if number > skip:
                yield number, raw


async def _growing(backend: Backend, file: FileObject) -> AsyncGenerator[tuple[int, bytes]]:
    number = 0
    async for raw in partial.lines(backend, file):
        number += 1
        yield number, raw


async def _stored(backend: Backend, file: FileObject) -> AsyncGenerator[tuple[int, bytes]]:
    try:
        async with aclosing(backend.blobs.stream(paths.file(file.id))) as chunks:
            async for line in numbered_lines(chunks, backend.settings.max_line_bytes):
                yield line.number, _raw(line)
    except BlobNotFoundError:
        raise files.not_found(file.id) from None


def _raw(line: Line) -> bytes:
    if line.raw is None:
        raise InvalidRequestError(f"Line {line.number} is too long to be read by lines; read the whole file instead.")
    return line.raw
