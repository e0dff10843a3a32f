"""What every request gets, whatever its route does: an id, a log line, an answer even to a failure, a bounded body."""

from __future__ import annotations

import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.middleware import Middleware
from starlette.responses import StreamingResponse

from app import errors
from app.requests import BoundedBody, Traced
from batchord.errors import ConfigError, StorageUnavailableError
from tests.integration.api import open_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

ID = re.compile(r"req_[0-9a-f]{32}")
MOST_BYTES = 1_024
JSON = {"content-type": "application/json"}


def trouble() -> FastAPI:
    """Give an application whose routes fail."""
    bounds = Middleware(BoundedBody, most_bytes=MOST_BYTES)
    app = FastAPI(middleware=[Middleware(Traced), bounds])
    errors.install(app)

    @app.get("/unexpected")
    async def unexpected() -> None:
        raise ValueError("hunter2")

    @app.get("/misconfigured")
    async def misconfigured() -> None:
        raise ConfigError("hunter2")

    @app.get("/halfway")
    async def halfway() -> StreamingResponse:
        async def content() -> AsyncIterator[bytes]:
            yield b"the beginning"
            raise StorageUnavailableError("hunter2")

        return StreamingResponse(content())

    @app.post("/size")
    async def size(body: list[int]) -> int:
        return len(body)

    @app.post("/v1/files")
    async def stream(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    return app


@asynccontextmanager
async def troubled(*, raises: bool = False) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(trouble(), raise_app_exceptions=raises)
    async with httpx2.AsyncClient(transport=transport, base_url="http://trouble") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status_code"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/none", 404),
        ("GET", "/none", 404),
        ("PATCH", "/v1/models", 405),
        ("POST", "/v1/batches", 400),
        ("GET", "/openapi.json", 200),
    ],
)
async def test_every_answer_has_an_id_of_its_own_and_its_time(
    valkey: EmbeddedValkey, tmp_path: Path, method: str, path: str, status_code: int
) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        answers = [await api.request(method, path) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status_code] * 2
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert all(ID.fullmatch(id_) for id_ in ids)
    assert ids[0] != ids[1]
    assert all(int(answer.headers["openai-processing-ms"]) >= 0 for answer in answers)


async def test_a_refusal_of_the_key_has_an_id_too(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="sk-1") as api:
        answer = await api.get("/v1/models")
    assert answer.status_code == 401
    assert ID.fullmatch(answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/unexpected", "/misconfigured"])
async def test_a_failure_shows_nothing_and_is_found_in_the_log_by_its_id(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with troubled() as api:
            answer = await api.get(path)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, None)
    (failed,) = [record for record in caplog.records if record.exc_info]
    assert failed.getMessage() == f"{answer.headers['x-request-id']} failed."
    assert "hunter2" in caplog.text
    assert f"{answer.headers['x-request-id']} GET {path} 500" in caplog.text


async def test_an_answer_that_fails_on_its_way_is_broken_off() -> None:
    async with troubled(raises=True) as api:
        with pytest.raises(RuntimeError) as caught:  # which has the server close the connection
            await api.get("/halfway")
    assert isinstance(caught.value.__cause__, StorageUnavailableError)


async def test_nobody_writes_lines_of_their_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.requests"):
        async with troubled() as api:
            await api.get("/a%0Ab?search=private")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.requests"]
    assert re.fullmatch(r"req_[0-9a-f]{32} GET /a%0Ab 404 \d+ ms", line)


def array(size_bytes: int) -> bytes:
    return b"[" + b"1," * ((size_bytes - 3) // 2) + b" " * (1 - size_bytes % 2) + b"1]"


async def chunked(content: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), 100):
        yield content[begin : begin + 100]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("size_bytes", "status_code"), [(MOST_BYTES, 200), (MOST_BYTES + 1, 413), (1_000_000, 413)])
async def test_a_body_past_the_bound_is_refused(told: bool, size_bytes: int, status_code: int) -> None:
    body = array(size_bytes)
    assert len(body) == size_bytes
    async with troubled() as api:
        answer = await api.post("/size", content=body if told else chunked(body), headers=JSON)
    assert answer.status_code == status_code
    if status_code == 413:
        message = f"The request body is larger than {MOST_BYTES} bytes, the most that this path takes."
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        assert answer.json() == {"error": error}


@pytest.mark.parametrize("told", [True, False])
async def test_a_route_that_streams_has_bounds_of_its_own(told: bool) -> None:
    body = b"x" * (3 * MOST_BYTES)
    async with troubled() as api:
        answer = await api.post("/v1/files", content=body if told else chunked(body))
    assert answer.json() == len(body)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
async def test_the_bound_is_that_of_the_settings_whatever_a_body_claims_to_be(
    valkey: EmbeddedValkey, tmp_path: Path, told: bool, content_type: str
) -> None:
    body: Any = b" " * 2_000
    async with open_api(valkey.url, tmp_path, max_body_bytes=MOST_BYTES) as api:
        content = body if told else chunked(body)
        answer = await api.post("/v1/batches", content=content, headers={"content-type": content_type})
    assert answer.status_code == 413


async def test_a_client_that_leaves_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    parts = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/files", "raw_path": b"/v1/files", "headers": []}
    with caplog.at_level(logging.INFO):
        await trouble()({**scope, "query_string": b"", "root_path": ""}, receive, send)
    assert sent == []
    assert [record.levelname for record in caplog.records if record.name.startswith("app")] == ["INFO"]
    assert "POST /v1/files 499" in caplog.text
