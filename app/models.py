"""The models that the providers are known to serve: `/v1/models`. Which a line may name is `batchord.routing`'s."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.deps import BackendDep, TenantDep
from batchord.service import models
from batchord.service.models import ServedModel

router = APIRouter(prefix="/v1", tags=["models"])


class Model(BaseModel):
    """A model; `owned_by` is the provider that a line goes to. When it was `created` nobody says: always 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(BaseModel):
    """All models; the list has no pages."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
async def list_models(backend: BackendDep, _tenant: TenantDep) -> ModelList:
    """List the models that the providers serve."""
    return ModelList(data=[_model(served) for served in await models.listing(backend)])


@router.get("/models/{model:path}")
async def retrieve_model(model: str, backend: BackendDep, _tenant: TenantDep) -> Model:
    """Give one of the listed models."""
    return _model(await models.find(backend, model))


def _model(served: ServedModel) -> Model:
    return Model(id=served.model, owned_by=served.provider)
