"""The shards that a plan lays: lines go to their provider's open shard, and a shard that is full is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from batchord.shard_file import Original, PlannedLine, encode_header, encode_planned
from batchord.state.keys import ROUND_SHARDS, Shard
from batchord.storage import paths
from workers.originals import Originals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from batchord.contract import BatchObject
    from batchord.validation import Accepted
    from workers.context import Context


class LaidShards:
    """The shards being laid: the open one of each provider, and how many lines each full one has.

    A context manager, since it holds a temporary file. `copies` counts the lines that ask for what an earlier one does.
    """

    def __init__(self, context: Context, batch: BatchObject) -> None:
        self._context = context
        self._batch = batch
        self._originals = Originals(batch.dedupe)
        self._open: dict[str, list[bytes]] = {}
        self._bytes: dict[str, int] = {}
        self.lines: dict[str, list[int]] = {}
        self.models: set[str] = set()
        self.copies = 0

    async def add(self, lines: Iterable[Accepted]) -> None:
        """Append lines to their providers' shards; a shard that is full is written."""
        for line in lines:
            await self._add(line)

    async def _add(self, line: Accepted) -> None:
        planned = PlannedLine(line.line, line.custom_id, msgspec.Raw(line.body), line.is_named)
        encoded = encode_planned(planned)
        lines = await self._with_room(line, len(encoded))
        own = Original(self._number(line.provider), len(lines), line.line)
        if original := self._originals.of(line, own):
            encoded = encode_planned(msgspec.structs.replace(planned, original=original))
            self.copies += 1
        lines.append(encoded)
        if len(self.models) < 2:  # noqa: PLR2004 (one is the batch's model, two are none)
            self.models.add(line.model)

    async def _with_room(self, line: Accepted, size_bytes: int) -> list[bytes]:
        """Give the open shard for a line, a new one if it would be too large with it."""
        settings, provider = self._context.settings, line.provider
        lines = self._open.setdefault(provider, [])
        total_bytes = self._bytes.get(provider, 0) + size_bytes
        if lines and (len(lines) >= settings.shard_lines or total_bytes > settings.shard_bytes):
            await self._write(provider, line.url)
            total_bytes = size_bytes
        self._bytes[provider] = total_bytes
        return self._open[provider]

    async def close(self, endpoint: str) -> None:
        """Write the shards that are not full."""
        for provider, lines in self._open.items():
            if lines:
                await self._write(provider, endpoint)

    def _number(self, provider: str) -> int:
        """Give the number of a provider's open shard."""
        return self._batch.round * ROUND_SHARDS + len(self.lines.get(provider, ()))

    async def _write(self, provider: str, endpoint: str) -> None:
        path = paths.shard_part(Shard(self._batch.id, provider, self._number(provider)), "input")
        await self._context.blobs.put(path, b"".join([encode_header(endpoint), *self._open[provider]]))
        self.lines.setdefault(provider, []).append(len(self._open[provider]))
        self._open[provider] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._originals.close()
