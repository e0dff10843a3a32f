"""Where the outcomes of sealed shards stand in storage, so that one of them can be read. Not for whole parts."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.errors import BlobNotFoundError
from batchord.shard_file import decode_part, read_lines
from batchord.storage import paths
from workers.patience import patiently

if TYPE_CHECKING:
    from batchord.contract import OutcomePart
    from batchord.shard_file import PartLine
    from batchord.state.keys import Shard
    from batchord.storage import Blobs

_PARTS: Final[tuple[OutcomePart, ...]] = ("output", "errors")
_SHARDS_MOST: Final = 16
"""How many shards' indexes are kept, of at most 1,000 lines and some 0.3 MB each."""

_Span = tuple[str, int, int]
"""The part of a line, where in it the line begins, and where it ends."""


class _Numbered(msgspec.Struct, array_like=True):
    """The number of a line of a part."""

    line: int


_read_number: Final = msgspec.json.Decoder(_Numbered).decode


class SealedShards:
    """The places of the outcomes of sealed shards, each shard's parts read once; the longest unused go at last."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._indexes: OrderedDict[Shard, dict[int, _Span]] = OrderedDict()
        self._reading = asyncio.Lock()

    def has(self, shard: Shard) -> bool:
        """Whether a shard is known to be sealed."""
        return shard in self._indexes

    async def outcome(self, shard: Shard, line: int) -> PartLine | None:
        """Give the outcome of a line of a sealed shard; None where it is not there, as when its round is over."""
        span = (await self._index(shard)).get(line)
        return None if span is None else await patiently(lambda: self._read(*span))

    async def _index(self, shard: Shard) -> dict[int, _Span]:
        async with self._reading:
            if shard not in self._indexes:
                self._indexes[shard] = await patiently(lambda: self._find(shard))
            self._indexes.move_to_end(shard)
            if len(self._indexes) > _SHARDS_MOST:
                self._indexes.popitem(last=False)
            return self._indexes[shard]

    async def _find(self, shard: Shard) -> dict[int, _Span]:
        spans: dict[int, _Span] = {}
        for part in _PARTS:
            path, start = paths.shard_part(shard, part), 0
            with suppress(BlobNotFoundError):
                async for raw in read_lines(self._blobs.stream(path)):
                    spans[_read_number(raw).line] = (path, start, start + len(raw))
                    start += len(raw) + 1
        return spans

    async def _read(self, path: str, start: int, stop: int) -> PartLine | None:
        with suppress(BlobNotFoundError):
            return decode_part(b"".join([chunk async for chunk in self._blobs.stream(path, span=(start, stop))]))
        return None
