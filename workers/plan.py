"""The step that reads a batch's file once, in constant memory: checks each line, and lays it into its provider's shard.

If any line has a problem the batch fails with all of them, and no request is ever sent. For a retry see `replan`.
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
from batchord.storage import paths
from batchord.validation import Scan
from batchord.validation.problems import unknown_price
from workers import produced
from workers.feed import feed
from workers.laid import LaidShards
from workers.lease import alone
from workers.patience import patiently
from workers.replan import replan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.contract import BatchObject
    from batchord.state.calls import Argument
    from batchord.validation import Accepted, ScanResult
    from batchord.validation.problems import ProblemError
    from workers.context import Context
    from workers.lease import Lease


async def plan(context: Context, batch_id: str) -> None:
    """Plan a batch that is being validated, then feed it; planning twice lays the same shards."""
    record = await context.state.run(batches.read(batch_id))
    if record is not None and record.batch.status is Status.VALIDATING:
        async with alone(context, keys.step_lease(batch_id, "plan")) as lease:
            if lease is None:
                return
            if record.batch.round:
                await patiently(lambda: replan(context, record, lease))
            else:
                await patiently(lambda: _validate(context, record.batch, lease))
    await feed(context, batch_id)


async def _validate(context: Context, batch: BatchObject, lease: Lease) -> None:
    await lease.keep()
    with LaidShards(context, batch) as shards:
        try:
            result = await _scan(context, batch, shards, lease)
        except BlobNotFoundError:
            await _refuse(context, batch, [_gone(batch)])
            return
        if result.problems:
            await _refuse(context, batch, result.problems)
        else:
            await _start(context, batch, result, shards)


async def _scan(context: Context, batch: BatchObject, shards: LaidShards, lease: Lease) -> ScanResult:
    """Read the whole file past the rules, laying the accepted lines."""
    settings, routes = context.settings, context.routes
    with Scan(
        batch.endpoint or None,
        routes.route,
        patterns=routes.patterns,
        rule=None if batch.max_cost_nanos is None else lambda line: _of_known_price(context, line),
        max_lines=settings.max_lines,
        max_problems=settings.max_problems,
        max_line_bytes=settings.max_line_bytes,
    ) as scan:
        async with aclosing(context.blobs.stream(paths.file(batch.input_file_id))) as chunks:
            async for chunk in chunks:
                await shards.add(scan.feed(chunk))
                await lease.keep()
                if scan.full:
                    break
        result = scan.finish()
    await shards.add(result.rest)
    return result


def _of_known_price(context: Context, line: Accepted) -> ProblemError | None:
    """See whether a budget can be kept with a line."""
    is_known = context.prices.of(line.provider, line.model, time.time()) is not None
    return None if is_known else unknown_price(line.model, line.provider)


def _gone(batch: BatchObject) -> BatchProblem:
    message = f"Cannot find file {batch.input_file_id}, or the organization does not have access to it."
    summary = f"the input file {batch.input_file_id} is gone; upload it again"
    return BatchProblem(code="invalid_request", param="file_id", message=message, summary=summary)


async def _refuse(context: Context, batch: BatchObject, problems: Sequence[BatchProblem]) -> None:
    fields: dict[str, Argument] = {"errors": problems_to_json(problems), "ended_ms": int(time.time() * 1000)}
    refusal = batches.transition(batch.id, lifecycle.to(Status.FAILED), time.time(), fields, round_=batch.round)
    await context.state.run(refusal)


async def _start(context: Context, batch: BatchObject, result: ScanResult, shards: LaidShards) -> None:
    endpoint = result.endpoint or ""
    await shards.close(endpoint)
    fields: dict[str, Argument] = {
        "total": result.lines,
        "endpoint": endpoint,
        "model": next(iter(shards.models)) if len(shards.models) == 1 else "",
        "copies": shards.copies,
        "started_ms": int(time.time() * 1000),
    }
    await produced.announce(context, batch)
    await context.state.run(batches.start(batch.id, time.time(), fields, shards.lines))
