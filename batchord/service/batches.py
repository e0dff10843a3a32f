"""What a client may do with a batch that is there: find it, watch it, cancel it, remove it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from batchord import lifecycle
from batchord.broker import Step
from batchord.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from batchord.lifecycle import Status
from batchord.service.removal import remove_batch
from batchord.state import batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.service.backend import Backend
    from batchord.state.batches import BatchRecord

_POLL_S: Final = 0.5


def not_found(batch_id: str) -> NotFoundError:
    """Give the error about a batch that the asker's tenant does not have."""
    return NotFoundError(f"No batch found with id '{batch_id:.200}'.")


async def find(backend: Backend, tenant: str, batch_id: str) -> BatchRecord:
    """Give a batch of the tenant.

    Raises:
        InvalidRequestError: the id is none of a batch.
        NotFoundError: the tenant has no such batch.
    """
    if not batch_id.startswith("batch"):
        message = f"Invalid 'batch_id': '{batch_id:.200}'. Expected an ID that begins with 'batch'."
        raise InvalidRequestError(message, "batch_id", "invalid_value")
    record = await backend.state.run(batches.read(batch_id))
    if record is None or record.removing or record.batch.tenant != tenant:
        raise not_found(batch_id)
    return record


async def cancel(backend: Backend, tenant: str, batch_id: str) -> BatchRecord:
    """Cancel a batch: requests in flight finish, the rest is not sent. Cancelling twice is the same as once.

    It is on the server's disk before this returns.

    Raises:
        ConflictError: the batch has ended otherwise.
    """
    await find(backend, tenant, batch_id)
    await backend.entry.send([batches.transition(batch_id, lifecycle.to(Status.CANCELLING), time.time())])
    record = await find(backend, tenant, batch_id)
    status = record.batch.status
    if status not in {Status.CANCELLING, Status.CANCELLED}:
        raise ConflictError(f"Cannot cancel a batch with status '{status}'.")
    if status is Status.CANCELLING:
        await backend.ask(Step.FEED, batch_id)
    return record


async def remove(backend: Backend, tenant: str, batch_id: str) -> None:
    """Remove a batch that has ended, with the files that it produced; its input file stays.

    Raises:
        ConflictError: the batch has not ended.
    """
    await remove_batch(backend.state, backend.blobs, await find(backend, tenant, batch_id))


async def watch(backend: Backend, record: BatchRecord) -> AsyncIterator[BatchRecord]:
    """Give a batch as it is and then whenever it has changed, up to its end or its removal.

    While Redis does not answer nothing has changed.
    """
    yield record
    while not record.batch.status.is_terminal and not backend.stopping.is_set():
        await asyncio.sleep(_POLL_S)
        now: BatchRecord | None = record
        with suppress(UnavailableError):
            now = await backend.state.run(batches.read(record.batch.id))
        if now is None:
            return
        if now.batch != record.batch:
            yield now
        record = now
