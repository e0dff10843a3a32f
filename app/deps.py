"""What routes are given: the backend of the process, and whose request it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from batchord.contract import DEFAULT_TENANT
from batchord.service.backend import Backend


def _backend(request: Request) -> Backend:
    backend = request.app.state.backend
    assert isinstance(backend, Backend)  # noqa: S101 (the lifespan put it there; for the type checker)
    return backend


BackendDep = Annotated[Backend, Depends(_backend)]


async def _tenant() -> str:
    return DEFAULT_TENANT


TenantDep = Annotated[str, Depends(_tenant)]
