"""The planned lines of the shards that a worker is busy with, read once a shard; bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from batchord.shard_file import ShardInput
from batchord.storage import paths
from workers.patience import patiently

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from batchord.storage import Blobs

_MB: Final = 1024 * 1024
_LIFE_S: Final = 2.0
"""For how long an input is kept for sure that no line asks for: then its shard is most likely done."""


class Inputs:
    """A cache of shards' inputs, from which the longest unused go when another one comes.

    Up to `idle_bytes` stay however long nobody asks, more while they are in use, and never more than `most_bytes`.
    """

    def __init__(
        self, blobs: Blobs, most_bytes: int = 64 * _MB, idle_bytes: int = 8 * _MB, life_s: float = _LIFE_S
    ) -> None:
        self._blobs = blobs
        self._most_bytes = most_bytes
        self._idle_bytes = idle_bytes
        self._life_s = life_s
        self._bytes = 0
        self._kept: OrderedDict[Shard, ShardInput] = OrderedDict()
        self._used_at: dict[Shard, float] = {}
        self._waiting: dict[Shard, list[asyncio.Future[ShardInput]]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def get(self, shard: Shard) -> ShardInput:
        """Give a shard's input; waits while the storage is away.

        Raises:
            BlobNotFoundError: the storage has lost it.
        """
        kept = self._kept.get(shard)
        if kept is None:
            return await self._wait_for(shard)
        self._kept.move_to_end(shard)
        self._used_at[shard] = time.monotonic()
        return kept

    def _wait_for(self, shard: Shard) -> asyncio.Future[ShardInput]:
        """Give a future of the asker's own, so that who is cancelled cancels nobody else."""
        waiter: asyncio.Future[ShardInput] = asyncio.get_running_loop().create_future()
        if shard not in self._waiting:
            self._waiting[shard] = []
            reading = asyncio.create_task(self._read(shard))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)
        self._waiting[shard].append(waiter)
        return waiter

    async def _read(self, shard: Shard) -> None:
        path = paths.shard_part(shard, "input")
        try:
            read = ShardInput(await patiently(lambda: self._blobs.get(path)))
        except BaseException as error:  # noqa: BLE001 (whoever asked gets it)
            for waiter in self._awaited(shard):
                waiter.set_exception(error)
            return
        self._keep(shard, read)
        for waiter in self._awaited(shard):
            waiter.set_result(read)

    def _awaited(self, shard: Shard) -> list[asyncio.Future[ShardInput]]:
        return [waiter for waiter in self._waiting.pop(shard) if not waiter.done()]

    def _keep(self, shard: Shard, read: ShardInput) -> None:
        now = time.monotonic()
        self._kept[shard], self._used_at[shard] = read, now
        self._bytes += read.size_bytes
        while len(self._kept) > 1 and self._bytes > self._room(now):
            oldest, dropped = self._kept.popitem(last=False)
            del self._used_at[oldest]
            self._bytes -= dropped.size_bytes

    def _room(self, now: float) -> int:
        """Give how many bytes may stay: few where the longest unused input is idle."""
        is_idle = now - self._used_at[next(iter(self._kept))] > self._life_s
        return self._idle_bytes if is_idle else self._most_bytes
