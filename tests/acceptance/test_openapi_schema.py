"""The running server against two schemas: the part of OpenAI's own that it offers, and the one that it serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import create_app
from batchord.settings import Settings
from tests.acceptance.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXAMPLES: Final = 12
_CUT: Final = Path(__file__).with_name("openapi-batch.json")
_IDS: Final = {"file_id", "upload_id", "batch_id"}
_CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def _offered() -> dict[str, Any]:
    """Give OpenAI's schema without the webhooks, which are no part of this server."""
    schema: dict[str, Any] = json.loads(_CUT.read_text(encoding="utf-8"))
    schema["paths"] = {path: item for path, item in schema["paths"].items() if not path.startswith("/webhook")}
    return schema


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


def _made(server: Server) -> dict[str, str]:
    """Give the ids of a new file, a new upload and a new batch, by the name of the path's parameter."""
    line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}'
    client = server.client()
    file = client.files.create(file=("in.jsonl", line), purpose="batch")
    upload = client.uploads.create(bytes=1, filename="in.jsonl", mime_type="application/jsonl", purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return {"file_id": file.id, "upload_id": upload.id, "batch_id": batch.id}


def _call(case: schemathesis.Case[Any], base_url: str, server: Server) -> None:
    """Send a case and check the answer; every other one that names an id names one that exists."""
    if case.path_parameters.keys() & _IDS and crc32(repr(case.path_parameters).encode()) % 2:
        known = _made(server)
        case.path_parameters.update({name: known[name] for name in case.path_parameters.keys() & _IDS})
    case.call_and_validate(base_url=base_url, checks=_CHECKS)


_openai_schema = schemathesis.openapi.from_dict(_offered())
_served_schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
_bounded = settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_schema_that_is_served_is_the_one_tried_here(server: Server) -> None:
    assert httpx2.get(f"{server.url}/openapi.json").json() == create_app(Settings()).openapi()


@_openai_schema.parametrize()
@_bounded
def test_every_answer_is_as_openai_s_schema_says(case: schemathesis.Case[Any], server: Server) -> None:
    _call(case, server.base_url, server)


@_served_schema.parametrize()
@_bounded
def test_every_answer_is_as_the_served_schema_says(case: schemathesis.Case[Any], server: Server) -> None:
    _call(case, server.url, server)
