"""Whether the API is up, and whether it can work: `/healthz` and `/readyz`."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.deps import BackendDep
from batchord.errors import StateUnavailableError
from batchord.state import leases

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer while the process serves requests."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(backend: BackendDep) -> JSONResponse:
    """Answer 200 while Redis answers, else 503; `workers` says how many of the fleet are alive."""
    try:
        alive = await backend.state.run(leases.alive(time.time()))
    except StateUnavailableError:
        return _answer(503, {"status": "unavailable", "redis": "down"})
    return _answer(200, {"status": "ok", "redis": "up", "workers": len(alive)})


def _answer(status_code: int, content: dict[str, Any]) -> JSONResponse:
    return JSONResponse(content, status_code, {"Retry-After": "5"} if status_code >= 500 else None)  # noqa: PLR2004
