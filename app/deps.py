"""What routes are given: the backend of the process, and whose request it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from batchord.service.backend import Backend

_BEARER = HTTPBearer(
    auto_error=False,  # the gate has checked it; this tells the schema
    scheme_name="ApiKeyAuth",
    description="A key made by `batchord keys create`, or one of BATCHORD_API_KEYS.",
)


def _backend(request: Request) -> Backend:
    backend = request.app.state.backend
    assert isinstance(backend, Backend)  # noqa: S101 (the lifespan put it there; for the type checker)
    return backend


BackendDep = Annotated[Backend, Depends(_backend)]


async def _tenant(request: Request, _key: Annotated[object, Security(_BEARER)]) -> str:
    tenant = request.state.tenant  # there is none where the gate did not let the request through: then this fails
    assert isinstance(tenant, str)  # noqa: S101 (for the type checker)
    return tenant


TenantDep = Annotated[str, Depends(_tenant)]
