"""The shards that a plan lays: lines go to their provider's open shard, and a shard that is full is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchord.shard_file import encode_header, encode_planned
from batchord.state.keys import ROUND_SHARDS, Shard
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchord.contract import BatchObject
    from batchord.validation import Accepted
    from workers.context import Context


class LaidShards:
    """The shards being laid: the open one of each provider, and how many lines each full one has."""

    def __init__(self, context: Context, batch: BatchObject) -> None:
        self._context = context
        self._batch = batch
        self._open: dict[str, list[bytes]] = {}
        self._bytes: dict[str, int] = {}
        self.lines: dict[str, list[int]] = {}
        self.models: set[str] = set()

    async def add(self, lines: Iterable[Accepted]) -> None:
        """Append lines to their providers' shards; a shard that is full is written."""
        for line in lines:
            await self._add(line)

    async def _add(self, line: Accepted) -> None:
        settings, encoded = (
            self._context.settings,
            encode_planned(line.line, line.custom_id, line.body, is_named=line.is_named),
        )
        lines = self._open.setdefault(line.provider, [])
        size_bytes = self._bytes.get(line.provider, 0) + len(encoded)
        if lines and (len(lines) >= settings.shard_lines or size_bytes > settings.shard_bytes):
            await self._write(line.provider, line.url)
            size_bytes = len(encoded)
        self._open[line.provider].append(encoded)
        self._bytes[line.provider] = size_bytes
        if len(self.models) < 2:  # noqa: PLR2004 (one is the batch's model, two are none)
            self.models.add(line.model)

    async def close(self, endpoint: str) -> None:
        """Write the shards that are not full."""
        for provider, lines in self._open.items():
            if lines:
                await self._write(provider, endpoint)

    async def _write(self, provider: str, endpoint: str) -> None:
        written = self.lines.setdefault(provider, [])
        number = self._batch.round * ROUND_SHARDS + len(written)
        path = paths.shard_part(Shard(self._batch.id, provider, number), "input")
        await self._context.blobs.put(path, b"".join([encode_header(endpoint), *self._open[provider]]))
        written.append(len(self._open[provider]))
        self._open[provider] = []
