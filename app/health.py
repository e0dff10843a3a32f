"""Whether the API is up, and whether it can work: `/healthz` and `/readyz`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.deps import BackendDep
from app.errors import RETRY_AFTER_S, ErrorModel
from batchord.errors import UnavailableError
from batchord.service.backend import Backend
from batchord.state import leases

router = APIRouter(tags=["health"])

_PATIENCE_S: Final = 5
"""How long Redis and the storage may take; less than who asks usually waits."""

Condition = Literal["up", "down"]


class Liveness(BaseModel):
    """What a process says that serves requests."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What the API needs; `workers` counts the living ones of the fleet, null where Redis cannot tell.

    Without a worker the API is ready all the same: it takes batches, which wait for one.
    """

    status: Literal["ok", "unavailable"]
    redis: Condition
    storage: Condition
    workers: int | None


@router.get("/healthz", responses={500: {"model": ErrorModel, "description": "The process fails."}})
async def healthz() -> Liveness:
    """Answer while the process serves requests."""
    return Liveness()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Redis or the storage is down."}})
async def readyz(backend: BackendDep, response: Response) -> Readiness:
    """Answer 200 while Redis and the storage answer, else 503 and which of them does not."""
    workers, storage = await asyncio.gather(_workers(backend), _condition(backend.blobs.probe()))
    redis: Condition = "down" if workers is None else "up"
    if redis == storage == "up":
        return Readiness(status="ok", redis=redis, storage=storage, workers=workers)
    response.status_code = 503
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return Readiness(status="unavailable", redis=redis, storage=storage, workers=workers)


async def _workers(backend: Backend) -> int | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return len(await backend.state.run(leases.alive()))
    except (UnavailableError, TimeoutError):
        return None


async def _condition(probe: Awaitable[None]) -> Condition:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await probe
    except (UnavailableError, TimeoutError):
        return "down"
    return "up"
