"""The plan of a retry: the lines that were asked for are laid into shards again, the outcomes of all others are kept.

A retry that cannot be planned is taken back: the batch ends as it had ended, and nothing of it is lost.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from batchord.contract import BatchProblem
from batchord.errors import BatchordError, BlobNotFoundError
from batchord.lifecycle import Outcome
from batchord.merge import kept_up, merged
from batchord.outcomes import ForeignOutcomeError, decode_outcome, numbered, traced
from batchord.selection import read_selection
from batchord.shard_file import encode_part
from batchord.state import batches, rounds
from batchord.storage import paths
from batchord.validation import numbered_lines
from batchord.validation.line import parse_line
from batchord.validation.problems import unknown_price
from batchord.validation.scan import directed
from workers import produced
from workers.laid import LaidShards

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.contract import OutcomePart
    from batchord.selection import Selection
    from batchord.shard_file import PartLine
    from batchord.state.batches import BatchRecord
    from batchord.state.calls import Argument
    from batchord.validation import Accepted
    from batchord.validation.splitter import Line
    from workers.context import Context
    from workers.lease import Lease

_LOGGER = logging.getLogger(__name__)


class _UnplannableError(BatchordError):
    """A line that is to be retried cannot be sent any more."""


async def replan(context: Context, record: BatchRecord, lease: Lease) -> None:
    """Plan a batch's retry and start it; doing so twice keeps and lays the same."""
    await lease.keep()
    batch = record.batch
    try:
        selection = await read_selection(context.blobs, record.selection)
        kept = await _keep(context, record, selection, lease)
        shards = await _lay(context, record, selection, lease)
    except (BlobNotFoundError, ForeignOutcomeError, msgspec.DecodeError, _UnplannableError) as error:
        _LOGGER.warning("The retry of batch %s cannot begin: %s", batch.id, error)
        await context.state.run(rounds.withdraw(batch.id, batch.round))
        return
    await produced.announce(context, batch)
    await context.state.run(
        batches.start(batch.id, time.time(), _fields(kept, shards.copies), shards.lines, batch.round)
    )


def _fields(kept: Counter[Outcome], copies: int) -> dict[str, Argument]:
    """Give the counters with which the round begins; usage and retries count on."""
    return {
        "completed": kept[Outcome.SUCCEEDED],
        "failed": kept[Outcome.FAILED],
        "cancelled": kept[Outcome.CANCELLED],
        "expired": kept[Outcome.EXPIRED],
        "kept_expired": kept[Outcome.EXPIRED],
        "sealed_succeeded": kept[Outcome.SUCCEEDED],
        "sealed_others": kept.total() - kept[Outcome.SUCCEEDED],
        "copies": copies,
        "started_ms": int(time.time() * 1000),
    }


async def _keep(context: Context, record: BatchRecord, selection: Selection, lease: Lease) -> Counter[Outcome]:
    """Write what is kept as parts of the new round, and count it."""
    kept: Counter[Outcome] = Counter()

    async def successes() -> AsyncIterator[bytes]:
        async for line in traced(context.blobs, record, "output", lease.keep):
            kept[Outcome.SUCCEEDED] += 1
            yield encode_part(line)

    async def others() -> AsyncIterator[bytes]:
        async for line in traced(context.blobs, record, "errors", lease.keep):
            if _is_kept(line, selection):
                kept[decode_outcome(line.content).outcome] += 1
                yield encode_part(line)

    parts: dict[OutcomePart, AsyncIterator[bytes]] = {"output": successes(), "errors": others()}
    for part, lines in parts.items():
        path = paths.kept(record.batch.id, record.batch.round, part)
        await context.blobs.put(path, aiter(produced.Chunks(lines, lease.keep)))
    return kept


def _is_kept(line: PartLine, selection: Selection) -> bool:
    """Whether a line without a success keeps its outcome; one that had been lost is sent as what it is in the input."""
    return line.line > 0 and not selection.has(decode_outcome(line.content).custom_id)


async def _lay(context: Context, record: BatchRecord, selection: Selection, lease: Lease) -> LaidShards:
    """Lay the input's lines whose outcomes are not kept."""
    others = _others(context, record, selection, lease)
    kept = merged([numbered(context.blobs, record, "output", lease.keep), others])
    following = await anext(kept, None)
    chunks = kept_up(context.blobs.stream(paths.file(record.batch.input_file_id)), lease.keep)
    with LaidShards(context, record.batch) as shards:
        async for line in numbered_lines(chunks):
            if following is not None and line.number == following.line:
                following = await anext(kept, None)
            else:
                await shards.add([_accepted(context, line, needs_price=record.batch.max_cost_nanos is not None)])
        await shards.close(record.batch.endpoint)
    return shards


async def _others(context: Context, record: BatchRecord, selection: Selection, lease: Lease) -> AsyncIterator[PartLine]:
    async for line in numbered(context.blobs, record, "errors", lease.keep):
        if _is_kept(line, selection):
            yield line


def _accepted(context: Context, line: Line, *, needs_price: bool) -> Accepted:
    """Give a line that was accepted once; its provider may be another one now, or none."""
    accepted = parse_line(line.number, line.raw or b"")
    if isinstance(accepted, BatchProblem):
        raise _UnplannableError(f"Line {line.number}: {accepted.message}")
    way = context.routes.route(accepted.model)
    if way is None:
        raise _UnplannableError(f"Line {line.number}: no provider serves the model {accepted.model!r} any more.")
    if needs_price and context.prices.of(way.provider, way.model, time.time()) is None:
        raise _UnplannableError(f"Line {line.number}: {unknown_price(way.model, way.provider).summary}.")
    return directed(accepted, way)
