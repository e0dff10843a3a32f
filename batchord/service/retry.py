"""Retrying a batch that has ended: its failed, expired and cancelled lines run again, and its successes are kept."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from batchord.broker import Step
from batchord.creation import max_cost_nanos
from batchord.errors import ConflictError, InvalidRequestError, NotFoundError
from batchord.lifecycle import NEXT, Status
from batchord.outcomes import decode_outcome
from batchord.prices import NANOS_PER_DOLLAR
from batchord.selection import Selection
from batchord.service import batches, files
from batchord.shard_file import read_lines
from batchord.state import batches as batch_state
from batchord.state import retired, rounds
from batchord.storage import paths
from batchord.windows import window_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.service.backend import Backend
    from batchord.state.batches import BatchRecord

REQUESTS_MOST: Final = 10_000


async def retry(backend: Backend, tenant: str, batch_id: str, *, max_cost: float | None = None) -> BatchRecord:
    """Run every line of a batch again that has no success, under the same batch; `max_cost` is its new budget, if any.

    Raises:
        ConflictError: the batch runs, or was never accepted.
        InvalidRequestError: there is no such line, a file is gone that a retry needs, or the budget is spent.
    """
    record = await _retriable(backend, tenant, batch_id)
    budget = _budget(record, max_cost)
    return await _begin(backend, tenant, record, Selection(None), budget)


async def retry_requests(  # noqa: PLR0913 (whose, which, and on which terms)
    backend: Backend,
    tenant: str,
    batch_id: str,
    *,
    custom_ids: Sequence[str] | None,
    request_ids: Sequence[str] | None,
    max_cost: float | None = None,
) -> BatchRecord:
    """Run these lines of a batch again, named by their custom_ids or by the ids of their outcomes.

    Raises:
        ConflictError: the batch runs, or was never accepted.
        InvalidRequestError: one is unknown or has succeeded, a file is gone that a retry needs, or the budget is spent.
    """
    param, wanted = _named(custom_ids, request_ids)
    record = await _retriable(backend, tenant, batch_id)
    budget = _budget(record, max_cost)
    selection = await _select(backend, record, param, dict.fromkeys(wanted))
    return await _begin(backend, tenant, record, selection, budget)


def _named(custom_ids: Sequence[str] | None, request_ids: Sequence[str] | None) -> tuple[str, Sequence[str]]:
    if (custom_ids is None) == (request_ids is None):
        raise InvalidRequestError("Give either 'custom_ids' or 'request_ids'.", "custom_ids", "invalid_value")
    param, wanted = ("custom_ids", custom_ids) if request_ids is None else ("request_ids", request_ids)
    if not wanted or len(wanted) > REQUESTS_MOST:
        message = f"Invalid '{param}': expected 1 to {REQUESTS_MOST:,} ids, but got {len(wanted or ()):,}."
        raise InvalidRequestError(message, param, "invalid_value")
    return param, wanted


def _budget(record: BatchRecord, max_cost: float | None) -> int | None:
    """Give the budget of the next round in nano-dollars, which also counts what the rounds before have cost."""
    nanos = record.batch.max_cost_nanos if max_cost is None else max_cost_nanos(max_cost)
    if nanos is not None and record.cost_nanos >= nanos:
        cost = f"${record.cost_nanos / NANOS_PER_DOLLAR:,.2f}"
        message = f"Batch '{record.batch.id}' has cost {cost} so far, all of its max_cost; give a higher 'max_cost'."
        raise InvalidRequestError(message, "max_cost", "max_cost_reached")
    return nanos


async def _retriable(backend: Backend, tenant: str, batch_id: str) -> BatchRecord:
    """Give a batch that may be retried and has what a retry needs."""
    record = await batches.find(backend, tenant, batch_id)
    batch = record.batch
    if Status.VALIDATING not in NEXT[batch.status]:
        raise ConflictError(f"Cannot retry a batch with status '{batch.status}'.")
    if "errors" not in record.files:
        raise InvalidRequestError(f"Batch '{batch_id}' has no request to retry: none failed, expired or was cancelled.")
    for file_id in (batch.input_file_id, *record.files.values()):
        try:
            await files.find(backend, tenant, file_id)
        except NotFoundError:
            raise InvalidRequestError(f"Batch '{batch_id}' cannot be retried: its file {file_id} is gone.") from None
    return record


async def _select(backend: Backend, record: BatchRecord, param: str, wanted: dict[str, None]) -> Selection:
    """Find the lines among those without a success; in constant memory beside the ids."""
    found = []
    async for raw in read_lines(backend.blobs.stream(paths.file(record.files["errors"]))):
        line = decode_outcome(raw)
        name = line.custom_id if param == "custom_ids" else line.id
        if name in wanted:
            found.append(line.custom_id)
            del wanted[name]
    if wanted:
        message = (
            f"Invalid '{param}': '{next(iter(wanted)):.200}' is no failed, expired or cancelled request of the batch."
        )
        raise InvalidRequestError(message, param, "invalid_value")
    return Selection(frozenset(found))


async def _begin(
    backend: Backend, tenant: str, record: BatchRecord, selection: Selection, budget: int | None
) -> BatchRecord:
    """Move the batch into its next round, on the server's disk before this returns.

    It is put on the sweep's list before, so that it is never off it, and once more after, at another time, so that a
    tidy that looked in between does not take it off. All that is one message, so that nobody can die in between.
    """
    batch, now = record.batch, time.time()
    deadline = int(now) + window_seconds(batch.completion_window)
    path = paths.selection(batch.id, batch.round + 1, uuid4().hex)
    await backend.blobs.put(path, selection.encode())
    _, has_moved, _ = await backend.entry.send(
        [
            batch_state.activate(batch.id, now),
            rounds.retry(record, deadline, path, budget),
            batch_state.activate(batch.id, math.nextafter(now, math.inf)),
        ]
    )
    if not has_moved:
        await backend.blobs.delete([path])
        status = (await batches.find(backend, tenant, batch.id)).batch.status
        raise ConflictError(f"Cannot retry a batch with status '{status}'.")
    await backend.state.run(retired.drop(batch.id))
    await backend.ask(Step.PLAN, batch.id)
    return await batches.find(backend, tenant, batch.id)
