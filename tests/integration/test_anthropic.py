from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, ModelInfo
from openai.types.chat import ChatCompletion
from openai.types.responses import Response as ResponseObject

from batchord.contract import Usage
from batchord.errors import ConfigError
from batchord.routing import Provider
from tests.integration.http1.origin import Call, opened, origin
from tests.messages_upstream import MessagesUpstream, run_messages_upstream
from tests.upstream import Rule
from workers.providers import ProviderError, Request, open_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from workers.providers import ProviderClient

KEY = "sk-ant-secret-0123456789"
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
HI = [{"role": "user", "content": "hi"}]
USED = Usage(input_tokens=123, cached_tokens=100, output_tokens=5, total_tokens=128)


@pytest.fixture
def upstream() -> Iterator[MessagesUpstream]:
    with run_messages_upstream() as server:
        yield server


def claude(
    base_url: str, environ: dict[str, str] | None = None, **options: Any
) -> AbstractAsyncContextManager[ProviderClient]:
    return opened(base_url, environ, kind="anthropic", **options)


def line(endpoint: str = CHAT, **fields: Any) -> Request:
    body = json.dumps({"model": "claude", "messages": HI, **fields}).encode()
    return Request(endpoint, body, custom_id="line-1", attempt=1, idempotency_key="batch_1-line-1")


async def test_a_chat_completion_is_asked_for_in_messages_and_answered_as_one(upstream: MessagesUpstream) -> None:
    async with claude(upstream.base_url, {"ANTHROPIC_API_KEY": KEY}, default_max_tokens=77) as client:
        response = await client.send(line())
    assert (response.status_code, response.request_id, response.usage) == (200, "req_batch_1-line-1", USED)
    completion = ChatCompletion.model_validate_json(response.body, strict=True)
    assert completion.choices[0].message.content == "hi"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 123
    (asked,) = upstream.requests
    assert asked.path == MESSAGES
    assert json.loads(asked.body)["max_tokens"] == 77
    assert (asked.headers["x-api-key"], asked.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert asked.headers["idempotency-key"] == "batch_1-line-1"
    assert "authorization" not in asked.headers


async def test_a_tool_that_must_be_called_is_called(upstream: MessagesUpstream) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    async with claude(upstream.base_url) as client:
        response = await client.send(line(tools=[tool], tool_choice=tool))
    (choice,) = ChatCompletion.model_validate_json(response.body, strict=True).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.model_dump()["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


async def test_a_native_line_and_its_answer_stay_as_they_are_to_the_byte() -> None:
    asked = b'{ "model":"claude", "max_tokens":1.0e2,"messages":[], "x":"\xc3\xa9 \\u00e9"}'
    told = b'{"id" : "msg_1", "content":[{"text":"\\u00e9", "n":1.10}], "usage":{"input_tokens":3,"output_tokens":4}}'

    async def answer(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nrequest-id: req_7\r\n\r\n%b" % (len(told), told))

    async with origin(answer) as server, claude(server.url.removesuffix("/v1")) as client:
        response = await client.send(Request(MESSAGES, asked, "line-1", 1, "key"))
    assert server.calls[0].body == asked
    assert (response.body, response.request_id) == (told, "req_7")
    assert response.usage == Usage(input_tokens=3, output_tokens=4, total_tokens=7)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_native_line_s_usage_is_read_wherever_it_goes(upstream: MessagesUpstream, kind: str) -> None:
    base_url = upstream.url if kind == "openai" else upstream.base_url
    async with opened(base_url, kind=kind, headers={"anthropic-version": "2023-06-01"}) as client:
        response = await client.send(line(MESSAGES, max_tokens=5))
    assert Message.model_validate_json(response.body).content[0].model_dump()["text"] == "hi"
    assert response.usage == USED


async def test_what_cannot_be_said_in_messages_is_refused_and_not_sent(upstream: MessagesUpstream) -> None:
    async with claude(upstream.base_url) as client:
        response = await client.send(line(n=2))
    error = json.loads(response.body)["error"]
    assert (response.status_code, response.is_unsent) == (400, True)
    assert (error["type"], error["param"]) == ("invalid_request_error", "n")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("status", "shown", "kind", "code"),
    [
        (400, 400, "invalid_request_error", "invalid_request_error"),
        (429, 429, "rate_limit_error", "rate_limit_error"),
        (500, 500, "server_error", "api_error"),
        (529, 503, "server_error", "overloaded_error"),
    ],
)
async def test_an_error_is_openai_s_for_a_chat_completion(
    upstream: MessagesUpstream, status: int, shown: int, kind: str, code: str
) -> None:
    upstream.rules = [Rule(status=status, headers={"retry-after": "7"})]
    async with claude(upstream.base_url) as client:
        response = await client.send(line())
    message = f"The upstream was told to answer {status}."
    assert json.loads(response.body) == {"error": {"message": message, "type": kind, "param": None, "code": code}}
    assert (response.status_code, response.retry_after_s) == (shown, 7.0)
    assert response.request_id == "req_batch_1-line-1"


async def test_an_error_stays_anthropic_s_for_a_native_line(upstream: MessagesUpstream) -> None:
    upstream.rules = [Rule(status=529)]
    async with claude(upstream.base_url) as client:
        response = await client.send(line(MESSAGES, max_tokens=5))
    assert (response.status_code, json.loads(response.body)["error"]["type"]) == (529, "overloaded_error")


async def test_a_page_of_html_becomes_the_error_envelope(upstream: MessagesUpstream) -> None:
    upstream.rules = [Rule(status=502, fault="html")]
    async with claude(upstream.base_url) as client:
        response = await client.send(line())
    error = json.loads(response.body)["error"]
    assert (response.status_code, error["type"], error["code"]) == (502, "server_error", None)
    assert "Bad Gateway" in error["message"]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (Rule(fault="html"), "invalid_response"),
        (Rule(fault="truncated"), "invalid_response"),
        (Rule(fault="huge"), "invalid_response"),  # a JSON object, but no message
        (Rule(fault="error_in_success"), "provider_error"),
        (Rule(fault="reset"), "connection_error"),
    ],
)
async def test_what_is_no_message_is_no_success(upstream: MessagesUpstream, rule: Rule, code: str) -> None:
    upstream.rules = [rule]
    async with claude(upstream.base_url) as client:
        with pytest.raises(ProviderError) as raised:
            await client.send(line())
    assert raised.value.code == code
    assert raised.value.message.startswith("The provider")


async def test_a_responses_line_goes_by_way_of_a_chat_completion(upstream: MessagesUpstream) -> None:
    body = json.dumps({"model": "claude", "input": "hi", "max_output_tokens": 9}).encode()
    async with claude(upstream.base_url) as client:
        response = await client.send(Request("/v1/responses", body, "line-1", 1, "key"))
    assert ResponseObject.model_validate_json(response.body).output_text == "hi"
    assert json.loads(upstream.requests[0].body)["max_tokens"] == 9


async def test_an_endpoint_that_anthropic_has_nothing_for_is_refused(upstream: MessagesUpstream) -> None:
    async with claude(upstream.base_url) as client:
        response = await client.send(line("/v1/embeddings", input="x"))
    assert (response.status_code, response.is_unsent, upstream.requests) == (400, True, [])
    assert "/v1/messages" in json.loads(response.body)["error"]["message"]


async def test_headers_of_the_configuration_win(upstream: MessagesUpstream) -> None:
    headers = {"Anthropic-Beta": "context-1m", "X-Api-Key": "other"}
    environ = {"MY_KEY": KEY}
    async with claude(
        upstream.base_url, environ, api_key_env="MY_KEY", anthropic_version="2026-10-21", headers=headers
    ) as client:
        await client.send(line())
    sent = upstream.requests[0].headers
    assert (sent["anthropic-beta"], sent["anthropic-version"]) == ("context-1m", "2026-10-21")
    assert sent["x-api-key"] == "other"


@pytest.mark.parametrize(("fields", "limits"), [({}, {50.0}), ({"rate_headers": "none"}, set())])
async def test_the_limits_that_anthropic_states_are_read_unless_it_is_told_not_to(
    upstream: MessagesUpstream, fields: dict[str, Any], limits: set[float]
) -> None:
    headers = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49"}
    upstream.rules = [Rule(headers=headers)]
    async with claude(upstream.base_url, **fields) as client:
        response = await client.send(line())
    assert {limit.limit for limit in response.stated} == limits


async def test_a_server_of_one_s_own_needs_no_key(upstream: MessagesUpstream) -> None:
    async with claude(upstream.base_url) as client:
        await client.send(line())
    assert "x-api-key" not in upstream.requests[0].headers


@pytest.mark.parametrize(
    ("fields", "variable"),
    [({}, "ANTHROPIC_API_KEY"), ({"base_url": "http://127.0.0.1:9", "api_key_env": "MY_KEY"}, "MY_KEY")],
)
def test_a_missing_key_is_refused_before_anything_is_sent(fields: dict[str, Any], variable: str) -> None:
    with pytest.raises(ConfigError, match=f"'p'.* {variable} is not set"):
        open_provider(Provider(name="p", kind="anthropic", **fields), {})


@pytest.mark.parametrize("path", ["", "/", "/v1", "/proxy/anthropic/"])
async def test_the_base_url_means_what_it_means_to_anthropic_s_package(upstream: MessagesUpstream, path: str) -> None:
    async with claude(upstream.base_url + path) as client:
        assert (await client.send(line())).is_success
    async with AsyncAnthropic(base_url=upstream.base_url + path, api_key=KEY) as package:
        await package.messages.create(model="claude", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
    ours, theirs = upstream.requests
    assert ours.path == theirs.path


async def test_the_models_are_those_that_the_server_lists() -> None:
    model = {"id": "claude-1", "type": "model", "display_name": "C", "created_at": "2025-01-01T00:00:00Z"}
    info = ModelInfo.model_validate(model | {"lifecycle": "active"}, strict=False)
    listed = b'{"data":[%b],"has_more":false,"first_id":"claude-1","last_id":"claude-1"}' % info.to_json().encode()

    async def answer(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(listed), listed))

    async with origin(answer) as server, claude(server.url.removesuffix("/v1")) as client:
        assert await client.models() == ["claude-1"]
    assert server.calls[0].head.startswith(b"GET /v1/models?limit=1000 HTTP/1.1\r\n")


def test_the_key_is_in_no_repr() -> None:
    client = open_provider(Provider(name="p", kind="anthropic"), {"ANTHROPIC_API_KEY": KEY})
    assert KEY not in repr(client) + repr(vars(client))


async def test_the_upstream_of_these_tests_refuses_what_the_package_would_not_send(upstream: MessagesUpstream) -> None:
    async with claude(upstream.base_url) as client:
        response = await client.send(line(MESSAGES))
    assert response.status_code == 400
    assert "lacks {'max_tokens'}" in json.loads(response.body)["error"]["message"]
