"""Batches: `/v1/batches`. What they may be and how they run is the service's to say."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field, WithJsonSchema

from app.analytics import AnalyticsModel
from app.bodies import Body, Dedupe, ExpiresAfter, MaxCost
from app.deps import BackendDep, TenantDep
from app.paging import Identified, ListPage
from batchord.contract import ENDPOINTS, BatchObject
from batchord.creation import Terms
from batchord.lifecycle import Status
from batchord.prices import in_dollars
from batchord.service import analytics, batches, creation
from batchord.service.batch_listing import Filter, listing
from batchord.service.creation import Order

router = APIRouter(prefix="/v1", tags=["batches"])

_LATEST: Final = 253_402_300_799
"""The last second of the year 9999."""

EndpointName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(ENDPOINTS)})]
Metadata = Annotated[
    dict[str, str],
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 16,
            "propertyNames": {"maxLength": 64},
            "additionalProperties": {"type": "string", "maxLength": 512},
        }
    ),
]


class InlineRequest(Body):
    """One request of a batch without an input file; its body is what the endpoint takes, without streaming."""

    custom_id: str
    body: dict[str, Any]


class CreateBatch(Body):
    """What a new batch is of, and on which terms.

    Our extension: `requests` in place of `input_file_id`, `model` for those whose body names none, `max_cost`, and
    `dedupe`.
    """

    input_file_id: str | None = None
    requests: list[InlineRequest] | None = Field(default=None, min_length=1, max_length=10_000)
    model: str | None = None
    endpoint: EndpointName
    completion_window: str
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    max_cost: MaxCost = None
    dedupe: Dedupe = None

    def order(self) -> Order:
        """Give what the service takes."""
        expires_after = self.output_expires_after
        life_s = None if expires_after is None else expires_after.seconds
        terms = Terms(self.endpoint, self.completion_window, self.metadata, life_s, self.max_cost, self.dedupe)
        requests = None if self.requests is None else [vars(request) for request in self.requests]
        return Order(terms, self.input_file_id, requests, self.model)


class BatchErrorModel(BaseModel):
    """Why an input was refused; `line` counts from 1, null for the file as a whole."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrorsModel(BaseModel):
    """All that is wrong with an input, or as much of it as is kept."""

    object: Literal["list"] = "list"
    data: list[BatchErrorModel]


class RequestCountsModel(BaseModel):
    """Lines in all, answered with success, and failed; expired and cancelled ones are in neither."""

    total: int
    completed: int
    failed: int


class InputTokensModel(BaseModel):
    """Of the input tokens, those that were read from a cache."""

    cached_tokens: int


class OutputTokensModel(BaseModel):
    """Of the output tokens, those of reasoning."""

    reasoning_tokens: int


class UsageModel(BaseModel):
    """The tokens of all answers so far."""

    input_tokens: int
    input_tokens_details: InputTokensModel
    output_tokens: int
    output_tokens_details: OutputTokensModel
    total_tokens: int


class BatchModel(Identified):
    """A batch. Times are UTC epoch seconds; what does not apply (yet) is null."""

    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrorsModel | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCountsModel
    usage: UsageModel
    metadata: dict[str, str] | None
    max_cost: float | None = Field(default=None, exclude_if=lambda value: value is None)
    dedupe: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    analytics: AnalyticsModel | None = Field(default=None, exclude_if=lambda value: value is None)

    @classmethod
    def of(cls, batch: BatchObject, found: AnalyticsModel | None = None) -> Self:
        """Give the wire's form of a batch, with its analytics where they were asked for."""
        fields = batch.model_dump(exclude={"errors", "usage"})
        max_cost = in_dollars(batch.max_cost_nanos)
        return cls(**fields, errors=_errors(batch), usage=_usage(batch), max_cost=max_cost, analytics=found)


def _errors(batch: BatchObject) -> BatchErrorsModel | None:
    if not batch.errors:
        return None
    return BatchErrorsModel(data=[BatchErrorModel(**problem.model_dump()) for problem in batch.errors])


def _usage(batch: BatchObject) -> UsageModel:
    usage = batch.usage
    return UsageModel(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputTokensModel(cached_tokens=usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensModel(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )


class DeletedBatch(BaseModel):
    """Says that a batch is gone."""

    id: str
    object: Literal["batch"] = "batch"
    deleted: Literal[True] = True


class ListQuery(BaseModel):
    """Which batches to list; all but `after` and `limit` are our extension.

    `search` is a part of an id, an input file's id, a model, an endpoint or a metadata value, in any case.
    """

    after: str | None = Field(default=None, min_length=1)
    limit: int = Field(default=20, ge=1, le=100)
    status: Status | None = None
    endpoint: str | None = None
    created_after: int | None = Field(default=None, ge=0, le=_LATEST, description="Epoch seconds, included.")
    created_before: int | None = Field(default=None, ge=0, le=_LATEST, description="Epoch seconds, not included.")
    search: str | None = None
    active_first: bool = Field(default=False, description="Those that have not ended first, both newest first.")
    include: Literal["analytics"] | None = None

    def filter(self) -> Filter:
        """Give what the service takes."""
        return Filter(self.status, self.endpoint, self.created_after, self.created_before, self.search)


@router.post("/batches")
async def create_batch(
    wanted: CreateBatch,
    backend: BackendDep,
    tenant: TenantDep,
    idempotency_key: Annotated[
        str | None, Header(alias="Idempotency-Key", description="The same request again is the same batch.")
    ] = None,
) -> BatchModel:
    """Create a batch of an uploaded file, or of inline requests."""
    record = await creation.create(backend, tenant, wanted.order(), idempotency_key)
    return BatchModel.of(record.batch)


@router.get("/batches")
async def list_batches(
    query: Annotated[ListQuery, Query()], backend: BackendDep, tenant: TenantDep
) -> ListPage[BatchModel]:
    """List batches, newest first."""
    page = await listing(
        backend, tenant, query.filter(), after=query.after, limit=query.limit, active_first=query.active_first
    )
    found: list[AnalyticsModel | None] = [None] * len(page.items)
    if query.include and page.items:
        found = [AnalyticsModel.of(each) for each in await analytics.of_batches(backend, page.items)]
    models = [BatchModel.of(record.batch, each) for record, each in zip(page.items, found, strict=True)]
    return ListPage[BatchModel].of(models, has_more=page.has_more)


@router.get("/batches/{batch_id}")
async def retrieve_batch(batch_id: str, backend: BackendDep, tenant: TenantDep) -> BatchModel:
    """Give a batch."""
    return BatchModel.of((await batches.find(backend, tenant, batch_id)).batch)


@router.post("/batches/{batch_id}/cancel")
async def cancel_batch(batch_id: str, backend: BackendDep, tenant: TenantDep) -> BatchModel:
    """Cancel a batch: requests in flight finish, the rest is not sent."""
    return BatchModel.of((await batches.cancel(backend, tenant, batch_id)).batch)


@router.delete("/batches/{batch_id}")
async def delete_batch(batch_id: str, backend: BackendDep, tenant: TenantDep) -> DeletedBatch:
    """Remove a batch that has ended, with the files that it produced. Our extension."""
    await batches.remove(backend, tenant, batch_id)
    return DeletedBatch(id=batch_id)
