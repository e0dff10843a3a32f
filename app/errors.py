"""OpenAI's error envelope for every error: ours, the framework's, the unexpected. Not for what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.refusals import MALFORMED, refusal
from batchord.errors import (
    BatchordError,
    ConflictError,
    GoneError,
    InvalidRequestError,
    KeyRefusedError,
    NotFoundError,
    UnavailableError,
)

_log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 5
"""When a client may ask again where Redis or the storage was away."""

_STATUS: Final[dict[type[BatchordError], int]] = {
    InvalidRequestError: 400,
    KeyRefusedError: 401,
    NotFoundError: 404,
    ConflictError: 409,
    GoneError: 410,
    UnavailableError: 503,
}
_HEADERS: Final[dict[int, dict[str, str]]] = {
    401: {"WWW-Authenticate": 'Bearer realm="batchord"'},
    409: {"x-should-retry": "false"},  # or the stock SDK sends a refused cancel three times
    503: {"Retry-After": str(RETRY_AFTER_S)},
}
_UNAVAILABLE: Final = "The server is not available for now. Please try again later."
_FAILED: Final = "The server had an error while processing your request. Its log says more under the request's id."
_WORDS: Final = {
    400: MALFORMED,  # the framework's word for a body of broken text, or nested too deep
    404: "Invalid URL ({method} {path})",
    405: "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)",
    413: "The request body is too large.",
}
"""What replaces the framework's words; whoever raises an HTTPException with words of its own is not touched."""
_FRAMEWORKS_WORDS: Final = frozenset(
    {"There was an error parsing the body", "Not Found", "Method Not Allowed", "Content Too Large"}
)


class ErrorBody(BaseModel):
    """What went wrong, in OpenAI's words; `param` is the argument's path and `code` the rule's name, where known."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorModel(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


_CONTENT: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorModel"}}}
"""By reference, for FastAPI gives a `model` the content type of the route's successes."""
ERROR_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"content": _CONTENT, "description": "The request was refused."},
    "5XX": {"content": _CONTENT, "description": "The server cannot answer now."},
}
"""What each route declares besides its success; `app.health` has the schema hold the model."""


def envelope(
    status_code: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Give an error's answer."""
    kind = "invalid_request_error" if status_code < 500 else "server_error"  # noqa: PLR2004 (where HTTP draws the line)
    body = ErrorBody(message=message, type=kind, param=param, code=code)
    return JSONResponse({"error": body.model_dump()}, status_code, {**_HEADERS.get(status_code, {}), **(headers or {})})


def answer(error: BatchordError) -> JSONResponse:
    """Give the answer to an error of ours; one that is no client's business is raised again, as a failure."""
    status_code = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if status_code is None:
        raise error
    if status_code == 503:  # noqa: PLR2004 (the operator reads what is away, the client does not)
        _log.warning("%s", error)
        return envelope(503, _UNAVAILABLE)
    return envelope(status_code, str(error), getattr(error, "param", None), getattr(error, "code", None))


def failure(error: Exception, request_id: str) -> JSONResponse:
    """Log what nobody expected, and give an answer that shows nothing of it."""
    _log.error("%s failed.", request_id, exc_info=error)
    return envelope(500, _FAILED)


def install(app: FastAPI) -> None:
    """Have the application answer every error that a route raises with the envelope."""
    app.add_exception_handler(BatchordError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BatchordError)  # noqa: S101 (as it was registered; for the type checker)
    return answer(error)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (as above)
    return answer(refusal(error.errors()[0], request.headers.get("content-type", "")))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 (as above)
    message = str(error.detail)
    if message in _FRAMEWORKS_WORDS:
        message = _WORDS[error.status_code].format(method=request.method, path=request.url.path)
    code = "method_not_supported" if error.status_code == 405 else None  # noqa: PLR2004 (HTTP's own number)
    return envelope(error.status_code, message, code=code, headers=error.headers)
