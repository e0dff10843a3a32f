from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.contract import Usage
from workers.providers import ProviderError, Response
from workers.providers.answers import model_names, read_answer, retry_after_s, usage_of
from workers.providers.http1 import Answer
from workers.providers.seam import StatedLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = 1_763_740_800.0  # Fri, 21 Nov 2025 16:00:00 GMT
CHAT = b'{"id":"chatcmpl-1","choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'


def tokens(asked: int = 0, cached: int = 0, answered: int = 0, reasoned: int = 0, total: int = 0) -> Usage:
    return Usage(
        input_tokens=asked,
        cached_tokens=cached,
        output_tokens=answered,
        reasoning_tokens=reasoned,
        total_tokens=total,
    )


def read(status_code: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return read_answer(Answer(status_code, headers or {}, body, 12.5, 5.0), NOW)


def refusal(status_code: int, body: bytes, headers: Mapping[str, str] | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        read(status_code, body, headers)
    return raised.value


def test_a_success_is_kept_byte_for_byte() -> None:
    answer = read(200, CHAT, {"x-request-id": "req_1"})
    assert answer == Response(200, CHAT, "req_1", tokens(3, 0, 4, 0, 7), None, 12.5, 5.0)


@pytest.mark.parametrize(
    "body",
    [b'{"a": 1.10, "b":1e5}', '{"text":"naïve \u2028 \\n"}'.encode(), b'{"big":123456789012345678901234567890}'],
)
def test_a_body_on_one_line_is_not_rewritten(body: bytes) -> None:
    assert read(200, body).body == body


def test_a_body_on_many_lines_is_put_on_one_and_means_the_same() -> None:
    pretty = b'\n{\r\n  "a": 1.10,\n  "text": "two\\nlines, two  spaces"\n}\n'
    assert read(200, pretty).body == b'{"a":1.10,"text":"two\\nlines, two  spaces"}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   \n",
        b"OK",
        b"<html><body>Bad Gateway</body></html>",
        b"[]",
        b"null",
        b'"text"',
        CHAT[:-1],
        CHAT[: len(CHAT) // 2],
        CHAT + b"x",
        CHAT + b"\n" + CHAT,
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"choices":["\xc3"]}',
        b'{"a":' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_success_that_is_not_one_json_object_is_no_success(body: bytes) -> None:
    assert refusal(200, body).code == "invalid_response"


@given(st.integers(0, len(CHAT) - 1))
def test_a_success_cut_anywhere_is_no_success(length: int) -> None:
    assert refusal(200, CHAT[:length]).code == "invalid_response"


def test_a_refused_success_shows_what_came_instead() -> None:
    assert "HTTP 200" in str(refusal(200, b"<p>Please\n  log in</p>"))
    assert "<p>Please log in</p>" in str(refusal(200, b"<p>Please\n  log in</p>"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "Overloaded", "code": 529}}, "Overloaded"),
        ({"id": "gen-1", "error": {"message": "Overloaded"}, "usage": None}, "Overloaded"),
        ({"error": "Overloaded"}, "Overloaded"),
        ({"error": {"reason": "Overloaded"}}, '{"reason":"Overloaded"}'),
    ],
)
def test_an_error_inside_a_success_is_no_success(body: Any, message: str) -> None:
    error = refusal(200, json.dumps(body).encode(), {"retry-after": "3"})
    assert (error.code, error.retry_after_s) == ("provider_error", 3.0)
    assert message in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"object": "response", "status": "completed", "error": None, "output": [{"type": "message"}]},
        {"object": "response", "status": "failed", "error": {"code": "invalid_prompt", "message": "no"}, "output": []},
        {"choices": [], "error": None},
        {"choices": [{"error": {"message": "one of two choices"}}]},
        {"data": [], "error": {}},
    ],
)
def test_an_answer_with_a_result_is_kept_whatever_its_error_says(body: Any) -> None:
    assert json.loads(read(200, json.dumps(body).encode()).body) == body


@pytest.mark.parametrize("status_code", [302, 400, 404, 429, 500, 503])
def test_an_error_answer_keeps_its_own_object(status_code: int) -> None:
    body = b'{"error":{"message":"no","type":"t","param":"model","code":"c"}}'
    answer = read(status_code, body)
    assert (answer.status_code, answer.body) == (status_code, body)


@pytest.mark.parametrize(
    ("status_code", "body", "kind", "words"),
    [
        (502, b"<html><body>Bad\nGateway</body></html>", "server_error", "HTTP 502 with text that is not a JSON"),
        (503, b"", "server_error", "HTTP 503 with an empty body"),
        (404, b'["not found"]', "invalid_request_error", '["not found"]'),
        (404, b'{"detail":', "invalid_request_error", '{"detail":'),
        (301, b"Moved", "invalid_request_error", "Moved"),
        (400, b"caf\xe9 \xff", "invalid_request_error", "caf\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_an_error_answer_without_an_object_gets_the_error_envelope(
    status_code: int, body: bytes, kind: str, words: str
) -> None:
    answer = read(status_code, body)
    error = json.loads(answer.body)["error"]
    assert answer.status_code == status_code
    assert (error["type"], error["param"], error["code"]) == (kind, None, None)
    assert words in error["message"]


def test_a_long_page_is_quoted_by_its_beginning() -> None:
    message = json.loads(read(502, b"x" * 10_000).body)["error"]["message"]
    assert "x" * 500 in message
    assert len(message) < 600


@given(st.sampled_from([200, 404, 500]), st.binary())
def test_whatever_comes_the_body_is_one_line_with_one_object(status_code: int, body: bytes) -> None:
    try:
        answer = read(status_code, body)
    except ProviderError:
        return
    assert b"\n" not in answer.body
    assert b"\r" not in answer.body
    assert isinstance(json.loads(answer.body), dict)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x-request-id": "req_1", "request-id": "req_2"}, b'{"id":"chatcmpl-1"}', "req_1"),
        ({"request-id": "req_2"}, b'{"id":"chatcmpl-1"}', "req_2"),
        ({}, b'{"id":"chatcmpl-1"}', "chatcmpl-1"),
        ({"x-request-id": ""}, b'{"id":"chatcmpl-1"}', "chatcmpl-1"),
        ({}, b'{"id":7}', ""),
        ({}, b"{}", ""),
    ],
)
def test_the_request_id_is_the_providers_own(headers: dict[str, str], body: bytes, expected: str) -> None:
    assert read(200, body, headers).request_id == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Fri, 21 Nov 2025 16:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 21 Nov 2025 15:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Fri, 99 Nov 2025 99:00:00 GMT"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_the_wait_that_a_provider_asks_for_is_read_in_all_its_forms(
    headers: dict[str, str], expected: float | None
) -> None:
    assert retry_after_s(headers, NOW) == expected


def test_a_date_without_a_zone_is_in_gmt_wherever_this_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after_s({"retry-after": "21 Nov 2025 16:00:30"}, NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(), st.text())
def test_a_wait_is_a_finite_number_of_seconds_or_none(after: str, after_ms: str) -> None:
    wait_s = retry_after_s({"retry-after": after, "retry-after-ms": after_ms}, NOW)
    assert wait_s is None or (math.isfinite(wait_s) and wait_s >= 0)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            tokens(10, 3, 20, 4, 30),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 20,
                "total_tokens": 30,
                "input_tokens_details": {"cached_tokens": 3},
                "output_tokens_details": {"reasoning_tokens": 4},
            },
            tokens(10, 3, 20, 4, 30),
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, tokens(5, 0, 0, 0, 5)),
        ({"input_tokens": 5, "output_tokens": 6}, tokens(5, 0, 6, 0, 11)),
        ({"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": None}, tokens(5, 0, 6, 0, 11)),
        ({"prompt_tokens": -5, "completion_tokens": "6", "total_tokens": True}, tokens()),
        ({"prompt_tokens": 10**30, "prompt_tokens_details": [1], "total_tokens": 1.5}, tokens()),
        ({}, tokens()),
        (None, tokens()),
        ([1, 2], tokens()),
        ("many", tokens()),
    ],
)
def test_usage_is_read_in_both_shapes_and_nonsense_counts_as_nothing(usage: Any, expected: Usage) -> None:
    assert usage_of(usage) == expected


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"object":"list","data":[{"id":"b","object":"model"},{"id":"a"},{"id":"b"}]}', ["b", "a"]),
        (b'{"data":[]}', []),
        (b'{"data":[{"id":""},{"id":"%s"},{"id":"a"}]}' % (b"x" * 201), ["a"]),
        (b'{"data":[{"id":7}]}', []),
        (b'{"data":null}', []),
        (b'{"error":{"message":"no"}}', []),
        (b"[" * 10_000, []),
        (b"\xff", []),
        (b"", []),
    ],
)
def test_a_list_of_models_is_read_or_is_none(body: bytes, names: list[str]) -> None:
    assert model_names(body) == names


def test_an_endless_list_of_models_is_cut() -> None:
    listed = [{"id": f"m-{n}"} for n in range(9_000)]
    assert model_names(json.dumps({"data": listed}).encode())[-1] == "m-4999"


@pytest.mark.parametrize("status_code", [200, 429])
def test_an_answer_tells_what_its_headers_say_of_limits_in_the_dialect_of_its_server(status_code: int) -> None:
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    answer = Answer(status_code, headers, CHAT, 12.5, 5.0)
    assert read_answer(answer, NOW, "openai").stated == (StatedLimit("requests", 60, 60, 0),)
    assert read_answer(answer, NOW).stated == ()
