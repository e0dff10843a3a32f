"""The content of files: `/v1/files/{file_id}/content`, whole, in ranges or by lines. Not for where the bytes are."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app import ranges
from app.deps import BackendDep, TenantDep
from batchord.contract import FileObject
from batchord.service import content, files
from batchord.service.backend import Backend
from batchord.service.content import LineQuery

router = APIRouter(prefix="/v1/files", tags=["files"])

_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file's bytes, or the lines that were asked for.",
        "content": {"application/octet-stream": _BINARY, "application/x-ndjson": _BINARY},
    },
    206: {"description": "The range that was asked for.", "content": {"application/octet-stream": _BINARY}},
    304: {"description": "The client has it already."},
}


class Wanted(BaseModel):
    """Which lines: at most `limit` of those after line `skip` whose custom_id has `search` in it, in either case."""

    limit: int | None = Field(default=None, ge=1)
    skip: int = Field(default=0, ge=0)
    search: str = ""


@router.head("/{file_id}/content", include_in_schema=False)
@router.get("/{file_id}/content", response_class=Response, responses=_RESPONSES)
async def retrieve_content(
    file_id: str, request: Request, backend: BackendDep, tenant: TenantDep, wanted: Annotated[Wanted, Query()]
) -> Response:
    """Give a file's bytes. With `limit`, `skip` or `search`, or while its batch runs, give whole lines as NDJSON.

    `X-Last-Line` is the line up to which the lines go: the `skip` to go on with. `X-Incomplete` says whether more
    follow, or may still come.
    """
    file = await files.find(backend, tenant, file_id)
    if content.is_growing(file) or wanted.model_fields_set:
        return await _by_lines(request, backend, file, LineQuery(wanted.skip, wanted.limit, wanted.search))
    return await _whole(request, backend, file)


async def _whole(request: Request, backend: Backend, file: FileObject) -> Response:
    etag = f'"{file.id}"'  # a file id always has the same bytes
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Disposition": _disposition(file)}
    if ranges.has(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    span = _span(request, file, etag)
    if span is None:
        headers["Content-Length"] = str(file.bytes)
        return await _stream(request, backend, file, None, headers)
    first, end = span
    headers |= {"Content-Range": f"bytes {first}-{end - 1}/{file.bytes}", "Content-Length": str(end - first)}
    return await _stream(request, backend, file, span, headers)


def _span(request: Request, file: FileObject, etag: str) -> tuple[int, int] | None:
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    try:
        return ranges.span(request.headers.get("range", ""), file.bytes)
    except ranges.UnsatisfiableRangeError:
        message = f"The requested range is not satisfiable: the file has {file.bytes} bytes."
        raise HTTPException(416, message, {"Content-Range": f"bytes */{file.bytes}"}) from None


async def _stream(
    request: Request, backend: Backend, file: FileObject, span: tuple[int, int] | None, headers: dict[str, str]
) -> Response:
    chunks = await content.whole(backend, file, span)
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/octet-stream")
    return StreamingResponse(chunks, 200 if span is None else 206, headers, "application/octet-stream")


async def _by_lines(request: Request, backend: Backend, file: FileObject, query: LineQuery) -> Response:
    measured = await content.measure(backend, file, query)
    headers = {
        "Content-Length": str(measured.size_bytes),
        "X-Last-Line": str(measured.last_line),
        "X-Incomplete": "true" if measured.is_incomplete else "false",
    }
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/x-ndjson")
    lines = content.excerpt(backend, file, query, measured)
    return StreamingResponse(lines, headers=headers, media_type="application/x-ndjson")


def _disposition(file: FileObject) -> str:
    return f"attachment; filename*=utf-8''{quote(file.filename, safe='')}"
