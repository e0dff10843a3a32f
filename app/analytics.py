"""What requests took and cost: `/v1/batches/{batch_id}/analytics`, and before, `/v1/files/{file_id}/cost-estimate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.deps import BackendDep, TenantDep
from batchord.service import analytics, batches, estimates
from batchord.service.analytics import Analytics
from batchord.service.estimates import Estimate

router = APIRouter(prefix="/v1")


class PercentilesModel(BaseModel):
    """Of all answered requests, in milliseconds, within 2.5 %; null where none was answered."""

    p50: float | None
    p95: float | None


class FiguresModel(BaseModel):
    """What some requests took.

    A line that a retry runs again is one more request, and what it took is added; one that was never begun, since the
    batch was stopped before, is none. Tokens, times and costs are of the answers that came. `cost` is null where one
    of them has no known price; `priced_cost` is the sum of those that do. `duplicates` of the requests took the answer
    of another one with the same body, and cost nothing.
    """

    requests: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    duplicates: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int
    latency_ms: PercentilesModel
    time_to_first_byte_ms: PercentilesModel
    cost: float | None
    priced_cost: float
    currency: Literal["USD"] = "USD"


class ModelFiguresModel(FiguresModel):
    """The figures of one model at one provider; an empty model stands for those past the first some hundred."""

    provider: str
    model: str


class AnalyticsModel(BaseModel):
    """A batch's figures so far, in all and by model.

    `late_answers` came from workers that had stood still, when others had taken their lines over: they were dropped,
    and the provider may bill them. `max_cost` and whether it is reached are there where the batch has one.
    """

    object: Literal["batch.analytics"] = "batch.analytics"
    batch_id: str
    late_answers: int
    total: FiguresModel
    models: list[ModelFiguresModel]
    max_cost: float | None = Field(default=None, exclude_if=lambda value: value is None)
    max_cost_reached: bool | None = Field(default=None, exclude_if=lambda value: value is None)

    @classmethod
    def of(cls, found: Analytics) -> Self:
        """Give the wire's form of a batch's analytics."""
        return cls(
            batch_id=found.batch_id,
            late_answers=found.late_answers,
            total=FiguresModel(**asdict(found.total)),
            models=[
                ModelFiguresModel(provider=each.provider, model=each.model, **asdict(each.figures))
                for each in found.models
            ],
            max_cost=found.max_cost,
            max_cost_reached=None if found.max_cost is None else found.max_cost_reached,
        )


class ModelEstimateModel(BaseModel):
    """What the requests for one model may take.

    `input_tokens` is estimated: a token for each 4 bytes of text. `max_output_tokens` is null where a request bounds
    its output in no way, `min_cost` and `max_cost` (dollars) where the price is not known, or the output not bounded.
    """

    provider: str
    model: str
    requests: int
    input_tokens: int
    max_output_tokens: int | None
    min_cost: float | None
    max_cost: float | None


class EstimateModel(BaseModel):
    """What a batch of a file may take; `invalid_requests` counts lines that a batch would be refused for."""

    object: Literal["file.cost_estimate"] = "file.cost_estimate"
    file_id: str
    requests: int
    invalid_requests: int
    input_tokens: int
    max_output_tokens: int | None
    min_cost: float | None
    max_cost: float | None
    currency: Literal["USD"] = "USD"
    models: list[ModelEstimateModel]

    @classmethod
    def of(cls, found: Estimate) -> Self:
        """Give the wire's form of an estimate."""
        models = [
            ModelEstimateModel(provider=each.provider, model=each.model, **asdict(each.sums)) for each in found.models
        ]
        return cls(file_id=found.file_id, invalid_requests=found.invalid, models=models, **asdict(found.total))


@router.get("/batches/{batch_id}/analytics", tags=["batches"])
async def batch_analytics(batch_id: str, backend: BackendDep, tenant: TenantDep) -> AnalyticsModel:
    """Give what a batch's requests took and cost so far."""
    record = await batches.find(backend, tenant, batch_id)
    return AnalyticsModel.of(await analytics.of_batch(backend, record))


@router.post("/files/{file_id}/cost-estimate", tags=["files"])
async def cost_estimate(file_id: str, backend: BackendDep, tenant: TenantDep) -> EstimateModel:
    """Read an input file, and give what a batch of it may cost; nothing is sent."""
    return EstimateModel.of(await estimates.estimate(backend, tenant, file_id))
