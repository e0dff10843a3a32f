"""The step that ends a batch: merges the sealed parts, in the input's order, into the output and the error file.

The produced files' ids follow from the batch's id and round, so running it twice is harmless; the terminal status is
set once. A retry has other files than the round before it, which are deleted when the new ones are there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchord import lifecycle
from batchord.contract import CANCELLED_MESSAGE, EXPIRED_MESSAGE, LineError, produced_file_id
from batchord.lifecycle import Status
from batchord.merge import merged, sealed, unopened
from batchord.shard_file import encode_attempts
from batchord.state import batches, files, keys, retired, rounds
from batchord.storage import paths
from workers import produced
from workers.feed import has_more, has_open, has_planned
from workers.forgotten import forgotten_files
from workers.lease import alone
from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from batchord.contract import BatchObject, Produced
    from batchord.shard_file import PartLine
    from batchord.state.batches import BatchRecord
    from batchord.state.calls import Argument
    from workers.context import Context
    from workers.lease import Lease


async def finalize(context: Context, batch_id: str) -> None:
    """End a batch that has no open shard; one that has ended is only tidied up, one that is planned is left alone."""
    since = await context.state.run(batches.active_since(batch_id))  # before the record: see `_tidy`
    record = await context.state.run(batches.read(batch_id))
    if record is None:
        await _deactivate(context, batch_id, since)
    elif record.batch.status.is_terminal:
        await _tidy(context, record, since)
    elif record.batch.status is not Status.VALIDATING:
        async with alone(context, keys.step_lease(batch_id, "finalize")) as lease:
            if lease is not None and await patiently(lambda: _end(context, batch_id, lease)):
                await finalize(context, batch_id)


async def _end(context: Context, batch_id: str, lease: Lease) -> bool:
    """Write the files, set the terminal status; False where a line may still be sent. It needs the parts: no tidying.

    The message may be a late one of an earlier round, so that it is looked at anew whether the batch is at its end.
    """
    await lease.keep()
    record = await context.state.run(batches.read(batch_id))
    if record is None or record.batch.status is Status.VALIDATING or await has_more(context, record):
        return False
    move = lifecycle.to(Status.FINALIZING)
    await context.state.run(batches.transition(batch_id, move, time.time(), round_=record.batch.round))
    record = await context.state.run(batches.read(batch_id))
    if record is None or not _is_ending(record.batch) or await has_open(context, record):
        return False
    await _conclude(context, record.batch, await _files(context, record, lease) if record.has_started else {})
    return True


def _is_ending(batch: BatchObject) -> bool:
    return batch.status in {Status.FINALIZING, Status.CANCELLING}


async def _files(context: Context, record: BatchRecord, lease: Lease) -> dict[str, Argument]:
    """See that the files of the round are there, and give the fields that name them; one without a line is none."""
    batch, retention_s = record.batch, context.settings.retention_s
    sizes = await forgotten_files(context.blobs, record)
    if sizes is None:
        sizes = await _write(context, record, lease)
    ids = {kind: produced_file_id(batch.id, kind, batch.round) for kind in sizes}
    calls = [call for kind, size in sizes.items() for call in produced.finish(batch, kind, size, retention_s)]
    without_line = [file for file in produced.of_round(batch, batch.round) if file.id not in ids.values()]
    await context.state.run_all([*calls, *files.delete(*without_line)])
    return {
        "produced_round": batch.round,
        "output_file_id": ids.get("output", ""),
        "error_file_id": ids.get("errors", ""),
    }


async def _write(context: Context, record: BatchRecord, lease: Lease) -> dict[Produced, int]:
    """Write the files of the round that have a line, the attempts last, and give their sizes."""
    streams: dict[Produced, list[AsyncIterator[PartLine]]] = {
        "output": sealed(context.blobs, record, ["output"], lease.keep),
        "errors": _errors(context, record, lease),
        "attempts": sealed(context.blobs, record, ["output", "errors"], lease.keep),
    }
    sizes = {kind: await _produce(context, lease, record.batch, kind, streams[kind]) for kind in streams}
    return {kind: size_bytes for kind, size_bytes in sizes.items() if size_bytes}


def _errors(context: Context, record: BatchRecord, lease: Lease) -> list[AsyncIterator[PartLine]]:
    """Give the lines of the error file; a batch that was at its end before it was cancelled was so by its deadline.

    That stays so however often the file is written: its id always has the same bytes.
    """
    code, message = ("batch_expired", EXPIRED_MESSAGE)
    if record.batch.finalizing_at is None:
        code, message = ("batch_cancelled", CANCELLED_MESSAGE)
    unsent = unopened(context.blobs, record, LineError(code, message), lease.keep)
    return [*sealed(context.blobs, record, ["errors"], lease.keep), *unsent]


async def _produce(
    context: Context, lease: Lease, batch: BatchObject, kind: Produced, streams: list[AsyncIterator[PartLine]]
) -> int:
    """Write one produced file and give its size; it is not written, and that is 0, where it would hold no line."""
    lines = merged(streams)
    first = await anext(lines, None)
    if first is None:
        return 0
    chunks = produced.Chunks(_contents(first, lines, kind), lease.keep)
    await context.blobs.put(paths.file(produced_file_id(batch.id, kind, batch.round)), aiter(chunks))
    return chunks.size_bytes


async def _contents(first: PartLine, rest: AsyncIterator[PartLine], kind: Produced) -> AsyncIterator[bytes]:
    encode = encode_attempts if kind == "attempts" else _content
    yield encode(first)
    async for line in rest:
        yield encode(line)


def _content(line: PartLine) -> bytes:
    return bytes(line.content) + b"\n"


async def _conclude(context: Context, ending: BatchObject, fields: Mapping[str, Argument]) -> None:
    """Set the terminal status; a cancel that came meanwhile decides which one."""
    while (record := await context.state.run(batches.read(ending.id))) and _is_ending(record.batch):
        if record.batch.round != ending.round:
            return
        has_expired = has_planned(record) or record.expired_lines > record.kept_expired_lines
        target = lifecycle.ending(record.batch.status, has_expired=has_expired)
        ended = {**fields, "ended_ms": int(time.time() * 1000)}
        move = batches.transition(ending.id, lifecycle.to(target), time.time(), ended, round_=ending.round)
        await context.state.run(move)


async def _tidy(context: Context, record: BatchRecord, since: float | None) -> None:
    """Remove what an ended batch needs no more, and nothing of a round that has begun since.

    Its place on the sweep's list goes last, unless it was put there again after `since`, which was read before the
    record: whoever retries a batch puts it there, and once more when it is moved.
    """
    batch = record.batch
    for round_ in range(batch.round + 1):
        await context.blobs.delete_folder(paths.round_folder(batch.id, round_))
    await context.blobs.delete_unfinished([paths.file(file.id) for file in produced.of_round(batch, batch.round)])
    await _delete_former_files(context, record)
    if await context.state.run(rounds.free(record)):
        await context.state.run(retired.note(batch.id, record.ended_ms / 1000 + context.settings.retention_s))
    await _deactivate(context, batch.id, since)


async def _delete_former_files(context: Context, record: BatchRecord) -> None:
    """Delete the files of earlier rounds, and the records of those that the last round announced but never produced."""
    batch, last = record.batch, record.produced_round
    former = [file for round_ in range(last or 0) for file in produced.of_round(batch, round_)]
    if former:
        await context.blobs.delete([paths.file(file.id) for file in former])
        await context.state.run_all(files.delete(*former))
    if last != batch.round:
        await context.state.run_all(files.delete(*produced.of_round(batch, batch.round)))


async def _deactivate(context: Context, batch_id: str, since: float | None) -> None:
    if since is not None:
        await context.state.run(batches.deactivate(batch_id, since))
