"""Retrying a batch that has ended: `/v1/batches/{batch_id}/retry` and `/retry-requests`. Our extension."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from app.batches import BatchModel
from app.bodies import Body, MaxCost
from app.deps import BackendDep, TenantDep
from batchord.service import retry

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class RetryBatch(Body):
    """On which terms: a `max_cost` takes the place of the batch's, and counts what its answers have cost so far."""

    max_cost: MaxCost = None


class RetryRequests(RetryBatch):
    """Which lines run again: exactly one of the two lists; `request_ids` are the ids of an error file's lines."""

    custom_ids: list[str] | None = Field(default=None, min_length=1, max_length=retry.REQUESTS_MOST)
    request_ids: list[str] | None = Field(default=None, min_length=1, max_length=retry.REQUESTS_MOST)


@router.post("/{batch_id}/retry")
async def retry_batch(
    batch_id: str, backend: BackendDep, tenant: TenantDep, wanted: RetryBatch | None = None
) -> BatchModel:
    """Run every failed, expired or cancelled line of an ended batch again; its successes are kept."""
    record = await retry.retry(backend, tenant, batch_id, max_cost=wanted.max_cost if wanted else None)
    return BatchModel.of(record.batch)


@router.post("/{batch_id}/retry-requests")
async def retry_batch_requests(
    batch_id: str, wanted: RetryRequests, backend: BackendDep, tenant: TenantDep
) -> BatchModel:
    """Run some of the failed, expired or cancelled lines of an ended batch again."""
    record = await retry.retry_requests(
        backend,
        tenant,
        batch_id,
        custom_ids=wanted.custom_ids,
        request_ids=wanted.request_ids,
        max_cost=wanted.max_cost,
    )
    return BatchModel.of(record.batch)
