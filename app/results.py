"""The joined results of a batch, `/v1/batches/{batch_id}/results`: what each line asked for, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from app.deps import BackendDep, TenantDep
from batchord.service import batches, results
from batchord.service.results import LineStatus, ResultQuery

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_NDJSON: Final = "application/x-ndjson"
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "One object a line: custom_id, line, status, input, response, error.",
        "content": {_NDJSON: {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Last-Line": {"schema": {"type": "integer"}},
            "X-Incomplete": {"schema": {"type": "string", "enum": ["true", "false"]}},
        },
    }
}


class Wanted(BaseModel):
    """Which results: of the lines after the first `skip`, at most `limit` with this status and part of a custom_id."""

    status: LineStatus | None = None
    search: str = ""
    limit: int | None = Field(default=None, ge=1)
    skip: int = Field(default=0, ge=0)


@router.get("/{batch_id}/results", response_class=Response, responses=_RESPONSES)
async def retrieve_results(
    batch_id: str, backend: BackendDep, tenant: TenantDep, wanted: Annotated[Wanted, Query()]
) -> Response:
    """Give what became of each line, in the input's order, as NDJSON; while the batch runs, as far as it is known.

    `X-Last-Line` counts the lines that were looked at: the `skip` to go on with. `X-Incomplete` says whether more
    follow, or whether what was given may still change.
    """
    record = await batches.find(backend, tenant, batch_id)
    query = ResultQuery(wanted.skip, wanted.limit, wanted.status, wanted.search)
    extent = await results.measure(backend, record, query)
    headers = {"X-Last-Line": str(extent.last), "X-Incomplete": "true" if extent.is_incomplete else "false"}
    return StreamingResponse(results.give(backend, record, query, extent), headers=headers, media_type=_NDJSON)
