from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from openai.types.responses import Response as ResponseObject

from batchord.contract import Usage
from batchord.errors import ConfigError
from batchord.routing import Provider
from tests.integration.http1.origin import OVER, Call, opened, origin, refusal, until
from tests.upstream import Rule, Upstream, run_upstream
from workers.providers import Request, open_provider, reader

if TYPE_CHECKING:
    from tests.upstream import Fault

KEY = "sk-secret-0123456789"


def chat(said: str = "hello", **fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": said}], **fields}).encode()


def line(body: bytes = chat(), endpoint: str = "/v1/chat/completions") -> Request:
    return Request(endpoint, body, custom_id="line-1", attempt=1, idempotency_key="batch_1-line-1")


async def test_an_answer_comes_with_its_id_usage_and_latency(upstream: Upstream) -> None:
    upstream.latency_s = 0.05
    async with opened(upstream.url) as client:
        response = await client.send(line(chat("how are you")))
    assert response.status_code == 200
    assert json.loads(response.body)["choices"][0]["message"]["content"] == "how are you"
    assert response.request_id == "req_batch_1-line-1"
    assert response.usage == Usage(input_tokens=3, output_tokens=3, total_tokens=6)
    assert response.retry_after_s is None
    assert 50 <= response.latency_ms < 10_000


async def test_the_first_byte_of_an_answer_comes_before_a_slow_last_one(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="slow", latency_s=0.2)]
    async with opened(upstream.url) as client:
        response = await client.send(line())
    assert 200 <= response.ttfb_ms < response.latency_ms


async def test_the_models_are_those_that_the_server_lists(upstream: Upstream) -> None:
    upstream.models = ["b", "meta/llama-3:8b", "a", "b"]
    async with opened(upstream.url) as client:
        assert await client.models() == ["b", "meta/llama-3:8b", "a"]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(status=404),
        Rule(status=500),
        Rule(fault="html"),
        Rule(fault="reset"),
        Rule(fault="not_http"),
        Rule(fault="truncated"),
        Rule(fault="error_in_success"),
    ],
)
async def test_a_server_that_lists_no_models_is_no_error(upstream: Upstream, rule: Rule) -> None:
    upstream.models, upstream.rules = ["a"], [rule]
    async with opened(upstream.url) as client:
        assert await client.models() == []


async def test_nobody_waits_for_a_server_that_never_lists_its_models(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.providers.models._TIMEOUT_S", 0.05)
    upstream.rules = [Rule(fault="hang")]
    async with opened(upstream.url) as client:
        assert await client.models() == []


async def test_the_body_goes_out_byte_for_byte(upstream: Upstream) -> None:
    body = '{ "model":"m" ,"temperature":1.10,"messages":[], "x":"é \\u00e9"}'
    async with opened(upstream.url) as client:
        await client.send(line(body.encode()))
    assert upstream.requests[0].body == body


async def test_each_request_says_who_sends_it_and_how_to_tell_a_repetition(upstream: Upstream) -> None:
    async with opened(upstream.url, {"KEY": KEY}, api_key_env="KEY", headers={"X-Team": "a"}) as client:
        await client.send(line())
    headers = upstream.requests[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["idempotency-key"] == "batch_1-line-1"
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(chat()))
    assert headers["user-agent"].startswith("batchord/")
    assert headers["x-team"] == "a"


async def test_a_cookie_from_one_answer_goes_into_no_other_request(upstream: Upstream) -> None:
    upstream.rules = [Rule(headers={"Set-Cookie": "session=1; Path=/"})]
    async with opened(f"http://localhost:{upstream.port}/v1") as client:
        await client.send(line())
        await client.send(line())
    assert "cookie" not in upstream.requests[1].headers


async def test_without_a_key_no_authorization_is_sent(upstream: Upstream) -> None:
    async with opened(upstream.url, {"OPENAI_API_KEY": KEY}) as client:
        await client.send(line())
    assert "authorization" not in upstream.requests[0].headers


async def test_a_configured_header_wins_over_our_own(upstream: Upstream) -> None:
    headers = {"Authorization": "Basic abc", "User-Agent": "house/1"}
    async with opened(upstream.url, {"KEY": KEY}, api_key_env="KEY", headers=headers) as client:
        await client.send(line())
    assert upstream.requests[0].headers["authorization"] == "Basic abc"
    assert upstream.requests[0].headers["user-agent"] == "house/1"


@pytest.mark.parametrize(
    ("base_path", "endpoint", "path"),
    [
        ("/v1", "/v1/embeddings", "/v1/embeddings"),
        ("/v1/", "/v1/embeddings", "/v1/embeddings"),
        ("", "/v1/embeddings", "/embeddings"),
        ("/openai/", "/v1/chat/completions", "/openai/chat/completions"),
        ("/v1beta/openai", "/v1/responses", "/v1beta/openai/responses"),
        ("/deployments/a%20b?api-version=1", "/v1/responses", "/deployments/a b/responses"),
    ],
)
async def test_the_base_url_takes_the_place_of_the_endpoints_v1(
    upstream: Upstream, base_path: str, endpoint: str, path: str
) -> None:
    async with opened(f"http://127.0.0.1:{upstream.port}{base_path}") as client:
        assert (await client.send(line(endpoint=endpoint))).status_code == 200
    assert upstream.requests[0].path == path


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}, {"KEY": "  \n"}])
def test_a_missing_key_is_refused_before_anything_is_sent(environ: dict[str, str]) -> None:
    config = Provider(name="p", base_url="http://127.0.0.1:9/v1", api_key_env="KEY")
    with pytest.raises(ConfigError, match=r"'p'.* KEY is not set"):
        open_provider(config, environ)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    config = Provider(name="p", base_url="http://127.0.0.1:9/v1", api_key_env="KEY")
    with pytest.raises(ConfigError) as raised:
        open_provider(config, {"KEY": f"{KEY}\nsecond line"})
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("base_url", ["http://", "http://host:port/v1", "https:///v1"])
def test_a_base_url_that_leads_nowhere_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        open_provider(Provider(name="p", base_url=base_url), {})


async def test_the_key_is_in_no_log_error_or_repr(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.rules = [Rule(match="broken", fault="cut")]
    async with opened(upstream.url, {"KEY": KEY}, api_key_env="KEY") as client:
        await client.send(line())
        error = await refusal(client, line(chat("broken")))
        shown = [repr(client), repr(vars(client)), repr(error), caplog.text]
    assert not [text for text in shown if KEY in text]
    assert "HTTP Request" not in caplog.text


@pytest.mark.parametrize("status", [400, 408, 429, 500, 503])
async def test_an_error_answer_is_a_response_with_the_wait_that_it_asks_for(upstream: Upstream, status: int) -> None:
    upstream.rules = [Rule(status=status, headers={"Retry-After": "2", "x-request-id": "req_7"})]
    async with opened(upstream.url) as client:
        response = await client.send(line())
    assert (response.status_code, response.retry_after_s, response.request_id) == (status, 2.0, "req_7")
    assert json.loads(response.body)["error"]["type"] == "upstream_error"


async def test_a_redirect_is_an_answer_and_is_not_followed(upstream: Upstream) -> None:
    upstream.rules = [Rule(match="/chat", status=307, headers={"Location": f"{upstream.url}/embeddings"})]
    async with opened(upstream.url, {"KEY": KEY}, api_key_env="KEY") as client:
        assert (await client.send(line())).status_code == 307
    assert upstream.count() == 1


async def test_a_page_of_html_becomes_the_error_envelope(upstream: Upstream) -> None:
    upstream.rules = [Rule(status=502, fault="html")]
    async with opened(upstream.url) as client:
        response = await client.send(line())
    error = json.loads(response.body)["error"]
    assert (response.status_code, error["type"]) == (502, "server_error")
    assert "Bad Gateway" in error["message"]


@pytest.mark.parametrize("fault", ["pretty", "gzip", "slow"])
async def test_an_unusual_but_whole_answer_is_one_line_with_all_of_it(upstream: Upstream, fault: Fault) -> None:
    async with opened(upstream.url) as client:
        usual = await client.send(line())
        upstream.rules = [Rule(fault=fault, latency_s=0.01)]
        unusual = await client.send(line())
    assert b"\n" not in unusual.body
    assert json.loads(unusual.body) == json.loads(usual.body)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("reset", "connection_error"),
        ("not_http", "invalid_response"),
        ("html", "invalid_response"),
        ("truncated", "invalid_response"),
        ("cut", "invalid_response"),
        ("cut_chunked", "invalid_response"),
        ("error_in_success", "provider_error"),
    ],
)
async def test_a_broken_answer_is_an_error_and_the_next_request_works(
    upstream: Upstream, fault: Fault, code: str
) -> None:
    upstream.rules = [Rule(fault=fault, times=1)]
    async with opened(upstream.url, max_concurrency=1) as client:
        error = await refusal(client, line())
        assert (await client.send(line())).status_code == 200
    assert error.code == code
    assert error.message.startswith("The provider")
    assert upstream.count() == 2


async def test_an_answer_past_the_limit_is_not_taken_whole_and_the_next_request_works(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_ANSWER_BYTES", 100_000)
    upstream.rules = [
        Rule(match="too much", fault="huge", size_bytes=100_000),
        Rule(match="fits", fault="huge", size_bytes=99_000),
    ]
    async with opened(upstream.url, max_concurrency=1) as client:
        error = await refusal(client, line(chat("too much")))
        assert len((await client.send(line(chat("fits")))).body) > 99_000
    assert error.code == "invalid_response"
    assert "larger than 100000 bytes" in error.message


async def test_the_total_time_bounds_the_wait_for_an_answer(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="hang")]
    async with opened(upstream.url, timeout_s=0.2) as client:
        error = await refusal(client, line())
    assert (error.code, error.message) == ("request_timeout", OVER.format("0.2"))


async def test_the_total_time_bounds_a_body_that_trickles(upstream: Upstream) -> None:
    upstream.rules = [Rule(match="slowly", fault="slow", latency_s=0.4)]
    async with opened(upstream.url, timeout_s=0.6, max_concurrency=1) as client:
        error = await refusal(client, line(chat("slowly")))
        assert (await client.send(line())).status_code == 200
    assert error.code == "request_timeout"


async def test_nobody_listening_is_a_connection_error() -> None:
    with run_upstream() as gone:
        url = gone.url
    async with opened(url) as client:
        error = await refusal(client, line())
    assert error.code == "connection_error"


async def test_a_cancelled_request_leaves_the_connections_usable(upstream: Upstream) -> None:
    upstream.rules = [Rule(match="forever", fault="hang")]
    async with opened(upstream.url, max_concurrency=1) as client:
        sending = asyncio.create_task(client.send(line(chat("forever"))))
        await until(lambda: upstream.count("forever") == 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (await client.send(line())).status_code == 200
    await until(lambda: upstream.in_flight == 0)


async def test_as_many_requests_as_the_limit_allows_are_in_flight_and_no_more(upstream: Upstream) -> None:
    upstream.latency_s = 0.2
    async with opened(upstream.url, max_concurrency=150) as client:
        responses = await asyncio.gather(*(client.send(line(chat(f"line-{n}"))) for n in range(300)))
    assert {response.status_code for response in responses} == {200}
    assert upstream.max_in_flight == 150
    assert upstream.count() == 300


def test_an_upstream_in_its_own_process_is_told_and_asked_over_http() -> None:
    command = [sys.executable, "-m", "tests.upstream", "--port", "0", "--latency", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            at = urlsplit(server.stdout.readline().strip())
            assert asked(at.netloc, "POST", "/_rules", b'[{"match":"twice","status":503,"times":2}]')[0] == 200
            statuses = [asked(at.netloc, "POST", f"{at.path}/chat/completions", chat("twice"))[0] for _ in range(3)]
            assert asked(at.netloc, "POST", f"{at.path}/chat/completions", chat("other"))[0] == 200
            _, seen = asked(at.netloc, "GET", "/_requests?match=twice")
            asked(at.netloc, "POST", "/_reset")
            _, forgotten = asked(at.netloc, "GET", "/_requests")
        finally:
            server.terminate()
            server.wait(timeout=10)
    assert statuses == [503, 503, 200]
    assert (seen["count"], seen["max_in_flight"]) == (3, 1)
    assert {request["path"] for request in seen["requests"]} == {"/v1/chat/completions"}
    assert forgotten["count"] == 0
    assert server.returncode == 0


def asked(host: str, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    with closing(HTTPConnection(host, timeout=10)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_the_upstream_leaves_no_thread_behind() -> None:
    with run_upstream():
        assert "upstream" in [thread.name for thread in threading.enumerate()]
    assert "upstream" not in [thread.name for thread in threading.enumerate()]


async def test_a_responses_line_reaches_a_server_of_chat_completions_as_one(upstream: Upstream) -> None:
    body = b'{"model":"m","instructions":"be brief","input":"how are you","max_output_tokens":9}'
    async with opened(upstream.url, endpoints=("/v1/chat/completions",)) as client:
        response = await client.send(line(body, "/v1/responses"))
    (sent,) = upstream.requests
    assert (sent.path, sent.headers["idempotency-key"]) == ("/v1/chat/completions", "batch_1-line-1")
    assert json.loads(sent.body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how are you"}],
        "max_tokens": 9,
    }
    assert json.loads(response.body)["object"] == "response"
    assert response.usage.total_tokens > 0


async def test_what_a_server_does_not_serve_is_not_sent_to_it(upstream: Upstream) -> None:
    async with opened(upstream.url, endpoints=("/v1/chat/completions",)) as client:
        refused = [
            await client.send(line(chat(), "/v1/embeddings")),
            await client.send(line(b'{"model":"m","input":"x","background":true}', "/v1/responses")),
        ]
    assert [(response.status_code, response.is_unsent) for response in refused] == [(400, True)] * 2
    assert upstream.count() == 0


@pytest.mark.parametrize("message", [b'{"content":"\\ud800"}', b'"hello"'])
async def test_a_chat_completion_that_cannot_be_read_is_no_answer_to_a_responses_line(message: bytes) -> None:
    async def answer(call: Call) -> None:
        body = b'{"choices":[{"message":%b}]}' % message
        call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with origin(answer) as server, opened(server.url, endpoints=("/v1/chat/completions",)) as client:
        error = await refusal(client, line(b'{"model":"m","input":"x"}', "/v1/responses"))
    assert error.code == "invalid_response"


async def test_a_responses_line_reaches_an_anthropic_server_as_a_message() -> None:
    message = (
        b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"fine"}],'
        b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":4,"output_tokens":1}}'
    )

    async def answer(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(message), message))

    async with origin(answer) as server, opened(server.url.removesuffix("/v1"), kind="anthropic") as client:
        response = await client.send(line(b'{"model":"claude-x","input":"how are you"}', "/v1/responses"))
        refused = await client.send(line(b"{}", "/v1/embeddings"))
    (call,) = server.calls
    assert call.head.startswith(b"POST /v1/messages ")
    (said,) = json.loads(call.body)["messages"]
    assert said == {"role": "user", "content": [{"type": "text", "text": "how are you"}]}
    told = ResponseObject.model_validate_json(response.body)
    assert (told.output_text, told.usage and told.usage.total_tokens) == ("fine", 5)
    assert (refused.status_code, refused.is_unsent) == (400, True)
