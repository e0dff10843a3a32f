from __future__ import annotations

import json
from typing import Any

import pytest

from batchord.errors import InvalidRequestError
from batchord.inline import encode_requests

CHAT = "/v1/chat/completions"


def request(custom_id: str = "a", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "body": {"model": "m", "messages": [], **body}}


def test_requests_become_lines_that_say_method_and_url() -> None:
    lines = encode_requests([request("a", text="Zoë\n😀"), request("b")], None, CHAT)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert [json.loads(line) for line in lines] == [
        {"method": "POST", "url": CHAT, "custom_id": "a", "body": {"model": "m", "messages": [], "text": "Zoë\n😀"}},
        {"method": "POST", "url": CHAT, "custom_id": "b", "body": {"model": "m", "messages": []}},
    ]


@pytest.mark.parametrize(("own", "expected"), [("m", "m"), (None, "default")])
def test_the_default_model_is_for_bodies_that_name_none(own: str | None, expected: str) -> None:
    (line,) = encode_requests([request(model=own)], "default", CHAT)
    assert json.loads(line)["body"]["model"] == expected


@pytest.mark.parametrize(
    ("bad", "param", "code"),
    [
        (request(model=None), "requests[1].body.model", "invalid_request"),
        (request(messages=None), "requests[1].body.messages", "invalid_request"),
        (request(stream=True), "requests[1].body.stream", "streaming_unsupported"),
        (request(custom_id=""), "requests[1].custom_id", "invalid_request"),
        (request(custom_id="x" * 513), "requests[1].custom_id", "invalid_request"),
        (request(custom_id="first"), "requests[1].custom_id", "duplicate_custom_id"),
        (request(temperature=float("nan")), "requests[1]", "invalid_value"),
        (request(text="\ud800"), "requests[1]", "invalid_value"),
    ],
)
def test_a_bad_request_is_named_by_its_place(bad: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        encode_requests([request("first"), bad, request("last")], None, CHAT)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert param in str(refused.value)


def test_numbers_keep_their_digits() -> None:
    (line,) = encode_requests([request(seed=2**70, temperature=0.1)], None, CHAT)
    assert b'"seed":1180591620717411303424' in line
    assert b'"temperature":0.1' in line
