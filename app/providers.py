"""How the providers are at the moment: `/v1/providers`, an extension. Not for their models."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.deps import BackendDep, TenantDep
from batchord.service import providers
from batchord.service.providers import ProviderStanding

router = APIRouter(prefix="/v1", tags=["providers"])


class ProviderList(BaseModel):
    """All providers; the list has no pages."""

    object: Literal["list"] = "list"
    data: list[ProviderStanding]


@router.get("/providers")
async def list_providers(backend: BackendDep, _tenant: TenantDep) -> ProviderList:
    """List the providers, and how each is at the moment."""
    return ProviderList(data=await providers.listing(backend))


@router.get("/providers/{provider}")
async def retrieve_provider(provider: str, backend: BackendDep, _tenant: TenantDep) -> ProviderStanding:
    """Give one of the listed providers."""
    return await providers.find(backend, provider)
