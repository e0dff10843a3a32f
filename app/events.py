"""A batch's progress as server-sent events: `/v1/batches/{batch_id}/events`. Our extension."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.batches import BatchModel
from app.deps import BackendDep, TenantDep
from batchord.service import batches
from batchord.state.batches import BatchRecord

router = APIRouter(prefix="/v1", tags=["batches"])


async def _found(batch_id: str, backend: BackendDep, tenant: TenantDep) -> BatchRecord:
    return await batches.find(backend, tenant, batch_id)


@router.get("/batches/{batch_id}/events", response_class=EventSourceResponse)
async def batch_events(
    found: Annotated[BatchRecord, Depends(_found)], backend: BackendDep
) -> AsyncIterable[ServerSentEvent]:
    """Give `progress` with the batch at once and when it changes, and `end` with the batch that has ended.

    A comment comes every 15 seconds, so that what lies between does not close a silent connection. Where the batch is
    removed meanwhile, the events stop without an `end`.
    """
    async for record in batches.watch(backend, found):
        event = "end" if record.batch.status.is_terminal else "progress"
        yield ServerSentEvent(event=event, data=BatchModel.of(record.batch))
