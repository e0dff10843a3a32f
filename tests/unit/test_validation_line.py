"""Each rule of a line, with the code, the parameter and the texts that a user sees when it is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchord.contract import ENDPOINTS, BatchProblem
from batchord.validation import Accepted, parse_line, with_model

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ABSENT = object()
STRING = "give a string that is unique in the file"


def line(**changes: Any) -> bytes:
    request = {"custom_id": "a-1", "method": "POST", "url": CHAT, "body": BODY} | changes
    return json.dumps({key: value for key, value in request.items() if value is not ABSENT}).encode()


def body(url: str = CHAT, **changes: Any) -> bytes:
    values = {key: value for key, value in (BODY | changes).items() if value is not ABSENT}
    return line(url=url, body=values)


def refused(raw: bytes, endpoint: str | None = None) -> BatchProblem:
    verdict = parse_line(7, raw, endpoint)
    assert isinstance(verdict, BatchProblem), verdict
    assert verdict.line == 7
    return verdict


def accepted(raw: bytes, endpoint: str | None = None) -> Accepted:
    verdict = parse_line(7, raw, endpoint)
    assert isinstance(verdict, Accepted), verdict
    assert verdict.line == 7
    return verdict


def test_a_good_line_is_accepted_with_the_exact_bytes_of_its_body() -> None:
    odd = b'{ "model" : "m\\u00e9",\t"messages":[ ], "n": 1.0e+5, "seed": 123456789012345678901234567890, "x": "\\/" }'
    raw = b'  {"custom_id": "a-\xc3\xa9", "url": "/v1/chat/completions", "body":  ' + odd + b' , "method": "POST"} \r'
    assert accepted(raw) == Accepted(line=7, custom_id="a-é", url=CHAT, model="mé", body=odd)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(line(extra={"deep": [1]}), id="unknown key"),
        pytest.param(line(custom_id="x" * 512), id="512 characters"),
        pytest.param(line(custom_id="😀" * 512), id="512 characters, not bytes"),
        pytest.param(body(stream=False), id="stream false"),
        pytest.param(body(stream=None), id="stream null"),
        pytest.param(body(max_tokens=None), id="no max_tokens of a chat completion"),
        pytest.param(body(messages=[]), id="no messages, which is the provider's to refuse"),
        pytest.param(body(temperature="hot"), id="wrong type of a parameter, which is the provider's to refuse"),
        pytest.param(line()[:-1] + b', "custom_id": "a-2"}', id="repeated key"),
        pytest.param(b" \t" + line().replace(b": ", b"\r : \t") + b"\r", id="spaces"),
    ],
)
def test_these_lines_are_good(raw: bytes) -> None:
    accepted(raw, CHAT)


@pytest.mark.parametrize("url", sorted(set(ENDPOINTS) - {CHAT, MESSAGES}))
def test_every_other_endpoint_of_the_contract_is_good_and_needs_no_messages(url: str) -> None:
    assert accepted(body(url, messages=ABSENT)).url == url
    assert accepted(body(url, messages=ABSENT), url).url == url


@pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/moderations", "/v1/videos"])
def test_stream_means_nothing_where_there_is_no_such_parameter(url: str) -> None:
    accepted(body(url, stream=True))


def test_a_native_message_is_good_with_its_max_tokens() -> None:
    assert accepted(body(MESSAGES, max_tokens=0), MESSAGES).url == MESSAGES


def test_the_last_of_a_repeated_key_counts() -> None:
    raw = line()[:-1] + b', "custom_id": "b", "body": {"model": "x", "messages": [], "model": "y"}}'
    verdict = accepted(raw)
    assert (verdict.custom_id, verdict.model) == ("b", "y")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"hello", "invalid character (byte 0)"),
        (b'{"custom_id": ', "Input data was truncated"),
        (line() + b" {}", f"trailing characters (byte {len(line()) + 2})"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'"text"', "Expected `object`, got `str`"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"a": 1,}', "trailing comma in object (byte 8)"),
        (b"{'a': 1}", "object keys must be strings (byte 1)"),
        (b'{"x": NaN}', "invalid character (byte 6)"),
        (b'{"body": {"x": Infinity}}', "invalid character (byte 15)"),
        (b'{"body": {"x": -Infinity}}', "invalid character (byte 16)"),
        (b'{"body": {"x": 01}}', "invalid number (byte 16)"),
        (b'{"body": {"x": "a\tb"}}', "invalid character (byte 17)"),
        (b'{"body": {"x": "\\ud83d cut emoji"}}', "unexpected end of hex escape (byte 22)"),
        (b'{"body": {"x": "\xff"}}', "not UTF-8"),
        (b'{"body": {"\xe9": 1}}', "not UTF-8"),
        (b'{"unknown": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"x": "' + b"\xc3\xa9" * 600_000 + b'\xc3"}', "not UTF-8"),
        (b'{"x": "\xc3', "not UTF-8"),
        (b'{"body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"other": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_object_is_refused(raw: bytes, reason: str) -> None:
    assert refused(raw) == BatchProblem(
        line=7,
        code="invalid_json_line",
        param=None,
        message="This line is not parseable as valid JSON.",
        summary=f"not a JSON object ({reason}); write each request as one object on a line of its own",
    )


def test_a_long_line_of_characters_across_the_pieces_is_utf8() -> None:
    text = "aé" * 700_000  # three bytes a pair: the pieces' ends fall into characters
    assert accepted(json.dumps({**json.loads(line()), "x": text}, ensure_ascii=False).encode()).custom_id == "a-1"


@pytest.mark.parametrize(
    ("param", "mend"),
    [
        ("custom_id", STRING),
        ("method", 'write "POST"'),
        ("url", 'write the endpoint, for example "/v1/chat/completions"'),
        ("body", "give the request as an object"),
    ],
)
def test_an_absent_key_is_refused(param: str, mend: str) -> None:
    assert refused(line(**{param: ABSENT})) == BatchProblem(
        line=7,
        code="missing_required_parameter",
        param=param,
        message=f"Missing required parameter: '{param}'.",
        summary=f"{param}: missing; {mend}",
    )


@pytest.mark.parametrize("param", ["custom_id", "method", "url", "body"])
@pytest.mark.parametrize(
    ("value", "got"),
    [(5, "a number"), (-1.5, "a number"), (True, "a boolean"), (False, "a boolean"), (None, "null"), ([], "an array")],
)
def test_a_value_of_the_wrong_type_is_refused(param: str, value: object, got: str) -> None:
    problem = refused(line(**{param: value}))
    expected = "an object" if param == "body" else "a string"
    assert (problem.code, problem.param) == ("invalid_request", param)
    assert problem.message == f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    assert problem.summary.startswith(f"{param}: is {got}, not {expected}; ")


@pytest.mark.parametrize(
    ("raw", "code", "param", "message", "summary"),
    [
        pytest.param(
            line(custom_id={}),
            "invalid_request",
            "custom_id",
            "Invalid type for 'custom_id': expected a string, but got an object instead.",
            f"custom_id: is an object, not a string; {STRING}",
            id="custom_id is an object",
        ),
        pytest.param(
            line(custom_id=""),
            "invalid_request",
            "custom_id",
            "Invalid 'custom_id': empty string. "
            "Expected a string with minimum length 1, but got an empty string instead.",
            f"custom_id: empty; {STRING}",
            id="custom_id is empty",
        ),
        pytest.param(
            line(custom_id="x" * 513),
            "invalid_request",
            "custom_id",
            "Invalid 'custom_id': string too long. "
            "Expected a string with maximum length 512, but got a string with length 513 instead.",
            "custom_id: has 513 characters; shorten it to 512",
            id="custom_id is long",
        ),
        pytest.param(
            line(method="GET"),
            "invalid_method",
            "method",
            "Invalid method: 'GET'. Only 'POST' is supported.",
            "method: is 'GET'; write \"POST\"",
            id="method",
        ),
        pytest.param(
            line(method="post"),
            "invalid_method",
            "method",
            "Invalid method: 'post'. Only 'POST' is supported.",
            "method: is 'post'; write \"POST\"",
            id="method in lower case",
        ),
        pytest.param(
            line(body="{}"),
            "invalid_request",
            "body",
            "Invalid type for 'body': expected an object, but got a string instead.",
            "body: is a string, not an object; give the request as an object",
            id="body is a string",
        ),
        pytest.param(
            body(model=ABSENT),
            "invalid_request",
            "body.model",
            "Model parameter is required.",
            "body.model: missing; name the model as a string",
            id="no model",
        ),
        pytest.param(
            body(model=["m"]),
            "invalid_request",
            "body.model",
            "Invalid type for 'body.model': expected a string, but got an array instead.",
            "body.model: is an array, not a string; name the model as a string",
            id="model is a list",
        ),
        pytest.param(
            body(messages=ABSENT),
            "invalid_request",
            "body.messages",
            "Messages parameter is required.",
            "body.messages: missing; give the conversation as a list of messages",
            id="no messages",
        ),
        pytest.param(
            body(MESSAGES),
            "invalid_request",
            "body.max_tokens",
            "Max tokens parameter is required.",
            "body.max_tokens: missing; say how many tokens the answer may have",
            id="no max_tokens of a native message",
        ),
    ],
)
def test_a_broken_rule_is_reported_as_openai_does(
    raw: bytes, code: str, param: str, message: str, summary: str
) -> None:
    assert refused(raw) == BatchProblem(line=7, code=code, param=param, message=message, summary=summary)


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_model_that_is_null_or_empty_is_a_missing_one(nothing: str | None) -> None:
    assert refused(body(model=nothing)).message == "Model parameter is required."


@pytest.mark.parametrize("url", [CHAT, MESSAGES])
def test_messages_that_are_null_are_missing(url: str) -> None:
    assert refused(body(url, messages=None)).message == "Messages parameter is required."


@pytest.mark.parametrize(
    ("url", "endpoint", "mend"),
    [
        ("/v1/embeddings", CHAT, "all lines of the batch must say '/v1/chat/completions'"),
        ("/v1/chat/completions/", CHAT, "all lines of the batch must say '/v1/chat/completions'"),
        ("", CHAT, "all lines of the batch must say '/v1/chat/completions'"),
        ("/v1/chat", None, f"use one of {', '.join(ENDPOINTS)}"),
        ("", None, f"use one of {', '.join(ENDPOINTS)}"),
    ],
)
def test_a_url_that_is_not_the_endpoint_is_refused(url: str, endpoint: str | None, mend: str) -> None:
    assert refused(line(url=url), endpoint) == BatchProblem(
        line=7,
        code="invalid_url",
        param="url",
        message="The URL provided for this request does not match the batch endpoint.",
        summary=f"url: is {url!r}; {mend}",
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (CHAT, "Chat Completions"),
        ("/v1/responses", "Responses"),
        ("/v1/completions", "Completions"),
        ("/v1/images/generations", "Images"),
        ("/v1/images/edits", "Images"),
        (MESSAGES, "Messages"),
    ],
)
@pytest.mark.parametrize("stream", [True, 1, "true", {}])
def test_streaming_is_refused(url: str, name: str, stream: object) -> None:
    assert refused(body(url, max_tokens=1, stream=stream)) == BatchProblem(
        line=7,
        code="streaming_unsupported",
        param="body.stream",
        message=f"{name}: Streaming is not supported in the Batch API.",
        summary="body.stream: a batch cannot stream; write false or leave it out",
    )


def test_the_first_rule_broken_is_the_one_reported() -> None:
    faults: dict[str, Any] = {"custom_id": 1, "method": "GET", "url": "/x", "body": {"stream": True}}
    mends: list[tuple[str, dict[str, Any]]] = [
        ("custom_id", {"custom_id": "a"}),
        ("method", {"method": "POST"}),
        ("url", {"url": CHAT}),
        ("body.model", {"body": {"stream": True, "model": "m"}}),
        ("body.messages", {"body": {"stream": True, "model": "m", "messages": []}}),
        ("body.stream", {"body": {"model": "m", "messages": []}}),
    ]
    for param, mend in mends:
        assert refused(line(**faults)).param == param
        faults |= mend
    accepted(line(**faults))


@pytest.mark.parametrize("raw", [line(method="x" * 10_000), line(url="x" * 10_000)])
def test_a_problem_stays_small_whatever_the_line_says(raw: bytes) -> None:
    problem = refused(raw)
    assert len(problem.message) + len(problem.summary) < 2_000


def test_a_summary_shows_no_control_characters() -> None:
    assert refused(line(method="\x1b[2J\n")).summary.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"")
@example(b"{}")
@example(b"\xef\xbb\xbf{}")
def test_arbitrary_bytes_never_raise(raw: bytes) -> None:
    assert isinstance(parse_line(1, raw), Accepted | BatchProblem)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first text drawn loads Unicode's tables
@given(
    request=st.fixed_dictionaries(
        {},
        optional={
            "custom_id": st.just("a") | JSON,
            "method": st.just("POST") | JSON,
            "url": st.sampled_from(ENDPOINTS) | JSON,
            "body": st.fixed_dictionaries({}, optional={"model": st.just("m") | JSON, "messages": JSON, "stream": JSON})
            | JSON,
            "other": JSON,
        },
    ),
    endpoint=st.none() | st.sampled_from(ENDPOINTS),
)
def test_arbitrary_requests_are_accepted_as_they_are_or_refused(request: dict[str, Any], endpoint: str | None) -> None:
    verdict = parse_line(1, dump(request), endpoint)
    if isinstance(verdict, Accepted):
        assert (verdict.custom_id, "POST", verdict.url) == (request["custom_id"], request["method"], request["url"])
        assert verdict.body == dump(request["body"])
        assert verdict.model == request["body"]["model"]
    else:
        assert verdict.message
        assert verdict.summary


@settings(deadline=None)
@given(at=st.integers(0, 150), byte=st.integers(0, 255))
def test_a_damaged_line_never_raises(at: int, byte: int) -> None:
    raw = bytearray(line())
    raw[at % len(raw)] = byte
    assert isinstance(parse_line(1, bytes(raw), CHAT), Accepted | BatchProblem)


def test_the_model_of_a_body_is_replaced_and_nothing_else() -> None:
    odd = b'{ "n": 1.0E+05, "model" : "p:m", "seed": 9007199254740993123, "x": [ 1 , "\\u00e9\\/" ], "y": 1e999 }'
    expected = b'{"n":1.0E+05,"model":"m","seed":9007199254740993123,"x":[ 1 , "\\u00e9\\/" ],"y":1e999}'
    assert with_model(odd, "m") == expected


def test_a_body_that_repeats_its_model_names_it_once() -> None:
    assert with_model(b'{"model":"a","x":1,"\\u006dodel":"b","x":2}', "c") == b'{"model":"c","x":2}'


NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z")
VALUES = NUMBERS | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1))
KEYS = st.text(max_size=4) | st.sampled_from(["model", "messages", 'mo"del', "modél"])


def exactly(text: str | bytes) -> dict[str, Any]:
    """Read JSON with the numbers as they are written."""
    values = json.loads(
        text, parse_float=lambda digits: ("number", digits), parse_int=lambda digits: ("number", digits)
    )
    assert isinstance(values, dict)
    return values


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(KEYS, VALUES), max_size=8), model=st.text())
def test_only_the_model_changes_in_any_body(pairs: list[tuple[str, str]], model: str) -> None:
    text = "{" + ", ".join(f"{json.dumps(key)} : {value}" for key, value in pairs) + "}"
    assert exactly(with_model(text.encode(), model)) == exactly(text) | {"model": model}
