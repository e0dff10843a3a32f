"""What a line of an output or error file says to a program: a success, or an error as a value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from batchord.results import Result, ResultError, decode_result


def response(status_code: int, body: Any) -> dict[str, Any]:
    return {"response": {"status_code": status_code, "request_id": "req_1", "body": body}, "error": None}


def decoded(**fields: Any) -> Result:
    return decode_result(msgspec.json.encode({"id": "batch_req_1", "custom_id": "a", **fields}))


@pytest.mark.parametrize("status_code", [200, 201, 299])
def test_a_success_has_the_provider_s_answer_and_no_error(status_code: int) -> None:
    body = {"choices": [{"message": {"content": "hé\u2028"}}], "seed": 2**60}
    result = decoded(**response(status_code, body))
    assert result == Result("a", status_code, "req_1", body, None)
    assert result.ok


@pytest.mark.parametrize(
    ("status_code", "body", "error"),
    [
        (400, {"error": {"message": "too long", "type": "t", "code": "c"}}, ResultError("c", "too long")),
        (429, {"error": {"message": "slow down", "type": "t", "code": None}}, ResultError("t", "slow down")),
        (404, {"error": {"message": "gone"}}, ResultError(None, "gone")),
        (500, {"error": {"message": "number", "code": 17}}, ResultError("17", "number")),
        (500, {"error": {}}, ResultError(None, "")),
        (502, {"error": "text"}, ResultError(None, "text")),
        (503, {"detail": "down"}, ResultError(None, "{'detail': 'down'}")),
        (300, {}, ResultError(None, "{}")),
        (199, {"error": None}, ResultError(None, "{'error': None}")),
    ],
)
def test_a_refusal_has_its_status_its_body_and_its_reason(status_code: int, body: Any, error: ResultError) -> None:
    result = decoded(**response(status_code, body))
    assert (result.status_code, result.body, result.error) == (status_code, body, error)
    assert not result.ok


def test_a_line_without_an_http_answer_has_batchord_s_reason() -> None:
    result = decoded(response=None, error={"code": "batch_expired", "message": "too late"})
    assert result == Result("a", None, None, None, ResultError("batch_expired", "too late"))
    assert not result.ok


def test_a_line_that_says_nothing_is_no_success() -> None:
    assert not decoded(response=None, error=None).ok
