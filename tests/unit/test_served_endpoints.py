"""Endpoints that a provider does not have: translated, or refused unsent. The provider is the simulated one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response as ResponseObject

from batchord.routing import Provider
from workers.providers import Request, Response, open_provider

CHAT = "/v1/chat/completions"


def request(endpoint: str, body: bytes) -> Request:
    return Request(endpoint, body, custom_id="line-1", attempt=1, idempotency_key="b-1")


async def answered(endpoints: list[str], endpoint: str, body: bytes = b'{"model":"m","input":"hello"}') -> Response:
    config = Provider(name="sim", kind="simulated", latency_s=0, endpoints=tuple(endpoints))
    client = open_provider(config, {})
    response = await client.send(request(endpoint, body))
    await client.aclose()
    return response


def error_of(response: Response) -> dict[str, Any]:
    assert (response.status_code, response.is_unsent) == (400, True)
    assert (response.usage.total_tokens, response.retry_after_s) == (0, None)
    error: dict[str, Any] = json.loads(response.body)["error"]
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("endpoints", [[], ["/v1/embeddings"], ["/v1/embeddings", CHAT]])
async def test_an_endpoint_that_is_served_gets_the_line_as_it_is(endpoints: list[str]) -> None:
    response = await answered(endpoints, "/v1/embeddings")
    assert json.loads(response.body)["object"] == "list"


async def test_a_responses_line_is_answered_from_a_chat_completion_with_its_usage() -> None:
    response = await answered([CHAT], "/v1/responses")
    told = ResponseObject.model_validate_json(response.body)
    assert told.output_text.endswith("You said: hello")
    assert told.usage is not None
    assert told.usage.total_tokens == response.usage.total_tokens > 0
    assert b"\n" not in response.body
    assert not response.is_unsent


async def test_a_responses_line_is_left_alone_where_responses_are_served() -> None:
    response = await answered([CHAT, "/v1/responses"], "/v1/responses")
    assert json.loads(response.body)["simulated"] is True


async def test_an_endpoint_that_is_not_served_is_refused_with_those_that_are() -> None:
    error = error_of(await answered([CHAT, "/v1/completions"], "/v1/embeddings"))
    assert (error["param"], error["code"]) == ("url", "unsupported_endpoint")
    assert error["message"] == (
        "The provider 'sim' does not serve /v1/embeddings. It serves /v1/chat/completions, /v1/completions."
    )
    assert error_of(await answered(["/v1/embeddings"], "/v1/responses"))["param"] == "url"


async def test_a_responses_line_that_says_too_much_is_refused_by_the_field() -> None:
    body = b'{"model":"m","input":"x","previous_response_id":"resp_1"}'
    error = error_of(await answered([CHAT], "/v1/responses", body))
    assert (error["param"], error["code"]) == ("previous_response_id", "unsupported_parameter")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"input":"\xff"}',
        b'{"input":"\\ud800"}',
        b'{"model":"m","input":"x","metadata":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    assert error_of(await answered([CHAT], "/v1/responses", body))["code"] == "invalid_json"


async def test_an_error_of_the_provider_is_passed_on_as_it_is() -> None:
    config = Provider(name="sim", kind="simulated", latency_s=0, failure_rate=1, endpoints=(CHAT,))
    response = await open_provider(config, {}).send(request("/v1/responses", b'{"model":"m","input":"x"}'))
    assert (response.status_code, response.is_unsent) == (500, False)
    assert "failure_rate" in json.loads(response.body)["error"]["message"]
