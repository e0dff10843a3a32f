"""The planned lines of the shards that a worker is busy with, read once a shard and kept within a bound of bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from batchord.shard_file import ShardInput
from batchord.storage import paths
from workers.patience import patiently

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from batchord.storage import Blobs


class Inputs:
    """A cache of shards' inputs; the least recently used goes first."""

    def __init__(self, blobs: Blobs, most_bytes: int = 64 * 1024 * 1024) -> None:
        self._blobs = blobs
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Shard, ShardInput] = OrderedDict()
        self._reading: dict[Shard, asyncio.Task[ShardInput]] = {}

    async def get(self, shard: Shard) -> ShardInput:
        """Give a shard's input; waits while the storage is away."""
        if kept := self._kept.get(shard):
            self._kept.move_to_end(shard)
            return kept
        if shard not in self._reading:
            self._reading[shard] = asyncio.create_task(self._read(shard))
        return await asyncio.shield(self._reading[shard])

    async def _read(self, shard: Shard) -> ShardInput:
        try:
            path = paths.shard_part(shard, "input")
            read = ShardInput(await patiently(lambda: self._blobs.get(path)))
            self._keep(shard, read)
            return read
        finally:
            del self._reading[shard]

    def _keep(self, shard: Shard, read: ShardInput) -> None:
        self._kept[shard] = read
        self._bytes += read.size_bytes
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.size_bytes
