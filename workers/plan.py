"""The step that reads a batch's file once, in constant memory: checks each line, and lays it into its provider's shard.

If any line has a problem the batch fails with all of them, and no request is ever sent.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from batchord import lifecycle
from batchord.contract import BatchProblem, problems_to_json
from batchord.errors import BlobNotFoundError
from batchord.lifecycle import Status
from batchord.state import batches, keys
from batchord.state.keys import Shard
from batchord.storage import paths
from batchord.validation import Scan
from workers.feed import feed
from workers.lease import alone
from workers.patience import patiently
from workers.shard_file import encode_header, encode_planned

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchord.state.batches import BatchRecord
    from batchord.state.calls import Argument
    from batchord.validation import Accepted, ScanResult
    from workers.context import Context
    from workers.lease import Lease


async def plan(context: Context, batch_id: str) -> None:
    """Plan a batch that is being validated, then feed it; planning twice lays the same shards."""
    record = await context.state.run(batches.read(batch_id))
    if record is not None and record.batch.status is Status.VALIDATING:
        async with alone(context.state, keys.step_lease(batch_id, "plan")) as lease:
            if lease is None:
                return
            await patiently(lambda: _validate(context, record, lease))
    await feed(context, batch_id)


async def _validate(context: Context, record: BatchRecord, lease: Lease) -> None:
    await lease.keep()
    shards = _Shards(context, record.batch.id)
    try:
        result = await _scan(context, record, shards, lease)
    except BlobNotFoundError:
        await _refuse(context, record.batch.id, [_gone(record)])
        return
    if result.problems:
        await _refuse(context, record.batch.id, result.problems)
    else:
        await _start(context, record.batch.id, result, shards)


class _Shards:
    """The shards being laid: the open one of each provider, and how many lines each full one has."""

    def __init__(self, context: Context, batch_id: str) -> None:
        self._context = context
        self._batch_id = batch_id
        self._open: dict[str, list[bytes]] = {}
        self._bytes: dict[str, int] = {}
        self.lines: dict[str, list[int]] = {}
        self.models: set[str] = set()

    async def add(self, lines: Iterable[Accepted]) -> None:
        """Append lines to their providers' shards; a shard that is full is written."""
        for line in lines:
            await self._add(line)

    async def _add(self, line: Accepted) -> None:
        settings, encoded = self._context.settings, encode_planned(line.line, line.custom_id, line.body)
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
        path = paths.shard_part(Shard(self._batch_id, provider, len(written)), "input")
        await self._context.blobs.put(path, b"".join([encode_header(endpoint), *self._open[provider]]))
        written.append(len(self._open[provider]))
        self._open[provider] = []


async def _scan(context: Context, record: BatchRecord, shards: _Shards, lease: Lease) -> ScanResult:
    """Read the whole file past the rules, laying the accepted lines."""
    settings, routes = context.settings, context.routes
    with Scan(
        record.batch.endpoint or None,
        routes.route,
        patterns=routes.patterns,
        max_lines=settings.max_lines,
        max_problems=settings.max_problems,
        max_line_bytes=settings.max_line_bytes,
    ) as scan:
        async with aclosing(context.blobs.stream(paths.file(record.batch.input_file_id))) as chunks:
            async for chunk in chunks:
                await shards.add(scan.feed(chunk))
                await lease.keep()
                if scan.full:
                    break
        result = scan.finish()
    await shards.add(result.rest)
    return result


def _gone(record: BatchRecord) -> BatchProblem:
    message = f"Cannot find file {record.batch.input_file_id}, or the organization does not have access to it."
    summary = f"the input file {record.batch.input_file_id} is gone; upload it again"
    return BatchProblem(code="invalid_request", param="file_id", message=message, summary=summary)


async def _refuse(context: Context, batch_id: str, problems: Sequence[BatchProblem]) -> None:
    fields: dict[str, Argument] = {"errors": problems_to_json(problems), "ended_ms": int(time.time() * 1000)}
    await context.state.run(batches.transition(batch_id, lifecycle.to(Status.FAILED), time.time(), fields))


async def _start(context: Context, batch_id: str, result: ScanResult, shards: _Shards) -> None:
    endpoint = result.endpoint or ""
    await shards.close(endpoint)
    fields: dict[str, Argument] = {
        "total": result.lines,
        "endpoint": endpoint,
        "model": next(iter(shards.models)) if len(shards.models) == 1 else "",
        "started_ms": int(time.time() * 1000),
    }
    await context.state.run(batches.start(batch_id, time.time(), fields, shards.lines))
