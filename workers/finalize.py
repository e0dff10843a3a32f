"""The step that ends a batch: merges the sealed parts, in the input's order, into the output and the error file.

The produced files' ids follow from the batch's id, so running it twice is harmless; the terminal status is set once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from batchord import lifecycle
from batchord.contract import CANCELLED_MESSAGE, EXPIRED_MESSAGE, FileObject, LineError, produced_file_id
from batchord.lifecycle import Status
from batchord.state import batches, files, keys
from batchord.storage import CHUNK_BYTES, paths
from workers.feed import has_open
from workers.lease import alone
from workers.merge import merged, sealed, unopened
from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from batchord.contract import Produced
    from batchord.lifecycle import Transition
    from batchord.state.batches import BatchRecord
    from batchord.state.calls import Argument
    from workers.context import Context
    from workers.lease import Lease
    from workers.shard_file import PartLine

_NAMES: Final[dict[Produced, str]] = {"output": "output", "errors": "error", "attempts": "attempts"}


async def finalize(context: Context, batch_id: str) -> None:
    """End a batch that has no open shard; one that has ended is only tidied up."""
    record = await context.state.run(batches.read(batch_id))
    if record is None:
        await context.state.run(batches.deactivate(batch_id))
    elif record.batch.status.is_terminal:
        await _tidy(context, record)
    else:
        async with alone(context.state, keys.step_lease(batch_id, "finalize")) as lease:
            if lease is not None and await patiently(lambda: _end(context, batch_id, lease)):
                await finalize(context, batch_id)


async def _end(context: Context, batch_id: str, lease: Lease) -> bool:
    """Write the files, set the terminal status; False where a shard is open. It needs the parts, so no tidying."""
    await lease.keep()
    await _move(context, batch_id, lifecycle.to(Status.FINALIZING))
    record = await context.state.run(batches.read(batch_id))
    if record is None or await has_open(context, record):
        return False
    fields = {
        "output_file_id": await _produce(
            context, lease, record, "output", sealed(context.blobs, record, ["output"], lease)
        )
    }
    fields["error_file_id"] = await _produce(context, lease, record, "errors", _errors(context, record, lease))
    await _produce(context, lease, record, "attempts", sealed(context.blobs, record, ["output", "errors"], lease))
    await _conclude(context, batch_id, {field: file_id for field, file_id in fields.items() if file_id})
    return True


def _errors(context: Context, record: BatchRecord, lease: Lease) -> list[AsyncIterator[PartLine]]:
    code, message = ("batch_expired", EXPIRED_MESSAGE)
    if record.batch.status is Status.CANCELLING:
        code, message = ("batch_cancelled", CANCELLED_MESSAGE)
    unsent = LineError(code, message)
    return [*sealed(context.blobs, record, ["errors"], lease), *unopened(context.blobs, record, unsent, lease)]


async def _produce(
    context: Context, lease: Lease, record: BatchRecord, kind: Produced, streams: list[AsyncIterator[PartLine]]
) -> str | None:
    """Write one produced file and give its id; None where it would hold no line."""
    lines = merged(streams)
    first = await anext(lines, None)
    if first is None:
        return None
    file_id, counted = produced_file_id(record.batch.id, kind), _Counted(lease)
    await context.blobs.put(paths.file(file_id), counted.contents(first, lines, kind))
    file = FileObject(
        id=file_id,
        bytes=counted.size_bytes,
        created_at=int(time.time()),
        filename=f"{record.batch.id}_{_NAMES[kind]}.jsonl",
        purpose="batch_output",
        expires_at=int(time.time()) + context.settings.retention_s if kind == "attempts" else None,
    )
    await context.state.run_all(files.write(file))
    return file_id


class _Counted:
    """The lines of a produced file on their way to storage: counts their bytes, and keeps the step's lease."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self.size_bytes = 0

    async def contents(self, first: PartLine, rest: AsyncIterator[PartLine], kind: Produced) -> AsyncIterator[bytes]:
        """Give the file in chunks of whole lines."""
        chunk = [_content(first, kind)]
        chunk_bytes = len(chunk[0])
        async for line in rest:
            if chunk_bytes >= CHUNK_BYTES:
                yield await self._count(chunk)
                chunk, chunk_bytes = [], 0
            chunk.append(_content(line, kind))
            chunk_bytes += len(chunk[-1])
        yield await self._count(chunk)

    async def _count(self, chunk: list[bytes]) -> bytes:
        joined = b"".join(chunk)
        self.size_bytes += len(joined)
        await self._lease.keep()
        return joined


def _content(line: PartLine, kind: Produced) -> bytes:
    if kind == "attempts":
        return b'{"line":%d,%b\n' % (line.line, bytes(line.trace)[1:])
    return bytes(line.content) + b"\n"


async def _conclude(context: Context, batch_id: str, fields: Mapping[str, Argument]) -> None:
    """Set the terminal status; a cancel that came meanwhile decides which one."""
    while (record := await context.state.run(batches.read(batch_id))) and not record.batch.status.is_terminal:
        unopened_shards = any(counts.opened < counts.planned for counts in record.shards.values())
        target = lifecycle.ending(record.batch.status, has_expired=unopened_shards or record.expired_lines > 0)
        ended_ms = {"ended_ms": int(time.time() * 1000)}
        await context.state.run(batches.transition(batch_id, lifecycle.to(target), time.time(), {**fields, **ended_ms}))


async def _tidy(context: Context, record: BatchRecord) -> None:
    """Remove what an ended batch needs no more; its place on the sweep's list goes last."""
    batch_id = record.batch.id
    await context.blobs.delete_folder(paths.batch(batch_id))
    await context.state.run_all(
        [
            *batches.retire(batch_id, record.shards),
            batches.expire(batch_id, context.settings.retention_s),
            batches.deactivate(batch_id),
        ]
    )


async def _move(context: Context, batch_id: str, move: Transition) -> bool:
    return await context.state.run(batches.transition(batch_id, move, time.time()))
