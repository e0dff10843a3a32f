"""The words for requests that are malformed, asked of a small application that has a bit of every kind of argument."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

from app import errors
from batchord import errors as ours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHORT = Annotated[str, Field(max_length=4)]


class Item(BaseModel):
    custom_id: Annotated[str, Field(min_length=2)]


class Body(BaseModel):
    endpoint: Literal["/a", "/b", "/c"]
    window: Literal["24h"] = "24h"
    either: Literal["x", "y"] = "x"
    metadata: Annotated[dict[SHORT, SHORT], Field(max_length=2)] | None = None
    count: Annotated[StrictInt, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    wanted: bool = True
    items: Annotated[list[Item], Field(min_length=1, max_length=2)] = Field(
        default_factory=lambda: [Item(custom_id="ab")]
    )
    word: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    even: int = 0

    @field_validator("even")
    @classmethod
    def _check(cls, even: int) -> int:
        if even % 2:
            raise ValueError("Invalid 'even': it is odd.")
        return even


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


RAISED: dict[str, Exception] = {
    "invalid": ours.InvalidRequestError("Bad.", "metadata.tags", "invalid_type"),
    "key": ours.KeyRefusedError("Bad key.", "invalid_api_key"),
    "unknown": ours.NotFoundError("No such File object: file-1", "id"),
    "conflict": ours.ConflictError("Cannot cancel a batch with status 'completed'."),
    "gone": ours.GoneError("This upload has expired."),
    "redis": ours.StateUnavailableError("redis://:hunter2@10.0.0.1 is away"),
    "storage": ours.StorageUnavailableError("s3://hunter2 is away"),
    "range": HTTPException(416, "Out of range.", {"Content-Range": "bytes */3"}),
}


def small_app() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    errors.install(app)

    @app.post("/body")
    async def take(body: Body) -> Body:
        return body

    @app.post("/closed")
    async def take_closed(body: Closed) -> Closed:
        return body

    @app.get("/query")
    async def query(limit: Annotated[int, Query(ge=1, le=100)], order: Literal["asc", "desc"] = "asc") -> str:
        return f"{limit} {order}"

    @app.get("/raised/{name}")
    async def raised(name: str) -> None:
        raise RAISED[name]

    return app


@asynccontextmanager
async def small_api() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(small_app()), base_url="http://small") as client:
        yield client


async def refused(method: str, path: str, **request: Any) -> tuple[str, str | None, str | None]:
    """Send a request that is refused with 400, and give message, param and code."""
    async with small_api() as client:
        answer = await client.request(method, path, **request)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error["message"], error["param"], error["code"]


Given = dict[str, Any]
WRONG_TYPES: list[tuple[Given, str, str, str]] = [
    ({"endpoint": None}, "endpoint", "one of '/a', '/b', or '/c'", "null"),
    ({"metadata": []}, "metadata", "an object", "an array"),
    ({"metadata": {"tags": []}}, "metadata.tags", "a string", "an array"),
    ({"metadata": {"a": 1}}, "metadata.a", "a string", "an integer"),
    ({"metadata": {"a": True}}, "metadata.a", "a string", "a boolean"),
    ({"metadata": {"a": {}}}, "metadata.a", "a string", "an object"),
    ({"metadata": {"a": None}}, "metadata.a", "a string", "null"),
    ({"count": "3"}, "count", "an integer", "a string"),
    ({"count": 1.5}, "count", "an integer", "a decimal number"),
    ({"even": 1.5}, "even", "an integer", "a decimal number"),
    ({"share": "much"}, "share", "a number", "a string"),
    ({"wanted": "perhaps"}, "wanted", "a boolean", "a string"),
    ({"wanted": []}, "wanted", "a boolean", "an array"),
    ({"items": {}}, "items", "an array", "an object"),
    ({"items": [{"custom_id": "ab"}, 1]}, "items[1]", "an object", "an integer"),
]
WRONG_CHOICES: list[tuple[Given, str, str]] = [
    ({"endpoint": "/d"}, "endpoint", "Invalid value: '/d'. Supported values are: '/a', '/b', and '/c'."),
    ({"either": "z"}, "either", "Invalid value: 'z'. Supported values are: 'x' and 'y'."),
    ({"window": "1h"}, "window", "Invalid value: '1h'. Supported values are: '24h'."),
    ({"window": ""}, "window", "Invalid value: ''. Supported values are: '24h'."),
]
TOO_LONG = "string too long. Expected a string with maximum length 4, but got a string with length 5 instead."
TOO_MANY = "array too long. Expected an array with maximum length 2, but got an array with length 3 instead."
CROWDED = "Expected an object with at most 2 properties, but got an object with 3 properties instead."
TOO_SHORT = "string too short. Expected a string with minimum length 2, but got a string with length 1 instead."
NO_TEXT = "empty string. Expected a string with minimum length 2, but got an empty string instead."
NO_ITEM = "empty array. Expected an array with minimum length 1, but got an empty array instead."
LOW = "integer below minimum value. Expected a value >= 1, but got 0 instead."
HIGH = "integer above maximum value. Expected a value <= 9, but got 10 instead."
HIGH_SHARE = "decimal above maximum value. Expected a value < 1.0, but got 1.5 instead."
NO_WORD = "string does not match pattern. Expected a string that matches the pattern '^[a-z]+$'."
WRONG_VALUES: list[tuple[Given, str, str, str]] = [
    ({"metadata": {"a": "12345"}}, "metadata.a", "string_above_max_length", TOO_LONG),
    ({"metadata": {"12345": "a"}}, "metadata.12345", "string_above_max_length", TOO_LONG),
    (
        {"metadata": {"a": "", "b": "", "c": ""}},
        "metadata",
        "object_above_max_properties",
        f"too many properties. {CROWDED}",
    ),
    ({"metadata": {"a": "\ud800"}}, "metadata.a", "invalid_value", "the string is not valid Unicode."),
    ({"items": []}, "items", "empty_array", NO_ITEM),
    ({"items": [{"custom_id": "ab"}] * 3}, "items", "array_above_max_length", TOO_MANY),
    ({"items": [{"custom_id": ""}]}, "items[0].custom_id", "empty_string", NO_TEXT),
    ({"items": [{"custom_id": "a"}]}, "items[0].custom_id", "string_below_min_length", TOO_SHORT),
    ({"count": 0}, "count", "integer_below_min_value", LOW),
    ({"count": 10}, "count", "integer_above_max_value", HIGH),
    ({"share": 1.5}, "share", "decimal_above_max_value", HIGH_SHARE),
    ({"word": "A"}, "word", "invalid_value", NO_WORD),
    ({"even": 1}, "even", "invalid_value", "it is odd."),
]


async def refused_body(body: Given) -> tuple[str, str | None, str | None]:
    """Send a body that is good but for this part of it."""
    content = json.dumps({"endpoint": "/a", **body})  # with surrogates as escapes, as a client may send them
    return await refused("POST", "/body", content=content, headers=JSON)


@pytest.mark.parametrize(("body", "param", "expected", "got"), WRONG_TYPES)
async def test_a_value_of_another_type_is_refused(body: Given, param: str, expected: str, got: str) -> None:
    message = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    assert await refused_body(body) == (message, param, "invalid_type")


@pytest.mark.parametrize(("body", "param", "message"), WRONG_CHOICES)
async def test_a_value_that_is_none_of_the_choices_is_refused(body: Given, param: str, message: str) -> None:
    assert await refused_body(body) == (message, param, "invalid_value")


@pytest.mark.parametrize(("body", "param", "code", "said"), WRONG_VALUES)
async def test_a_value_past_a_limit_is_refused(body: Given, param: str, code: str, said: str) -> None:
    assert await refused_body(body) == (f"Invalid '{param}': {said}", param, code)


JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
MALFORMED = (
    "We could not parse the JSON body of your request. "
    "The API expects a JSON payload, but what was sent was not valid JSON."
)
NO_BODY = ("The request has no body; send a JSON object.", None, "missing_required_parameter")


@pytest.mark.parametrize(
    "content",
    [b"{", b"{'a': 1}", b"\xff", b"nonsense", b'{"a": 1}{', b"[" * 100_000, b'{"endpoint": ' + b"9" * 5_000 + b"}"],
    ids=["cut off", "wrong quotes", "not UTF-8", "no JSON", "two values", "nested too deep", "number too long"],
)
async def test_a_body_that_is_no_json_is_refused(content: bytes) -> None:
    assert await refused("POST", "/body", content=content, headers=JSON) == (MALFORMED, None, None)


@pytest.mark.parametrize("headers", [JSON, FORM, {}])
async def test_a_request_without_its_body_is_refused(headers: dict[str, str]) -> None:
    assert await refused("POST", "/body", headers=headers) == NO_BODY


@pytest.mark.parametrize(("text", "kind"), [("[]", "an array"), ('"a"', "a string"), ("1", "an integer")])
async def test_a_body_that_is_no_object_is_refused(text: str, kind: str) -> None:
    message = f"Invalid type for the request body: expected an object, but got {kind} instead."
    assert await refused("POST", "/body", content=text, headers=JSON) == (message, None, "invalid_type")


async def test_a_body_of_another_content_type_is_refused() -> None:
    message, param, code = await refused("POST", "/body", content=b'{"endpoint": "/a"}', headers=FORM)
    assert message.startswith("Unsupported content type: 'application/x-www-form-urlencoded'.")
    assert (param, code) == (None, "unsupported_content_type")


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "endpoint"), ({"endpoint": "/a", "items": [{"custom_id": "ab"}, {}]}, "items[1].custom_id")],
)
async def test_a_missing_parameter_is_named(body: Given, param: str) -> None:
    expected = (f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    assert await refused("POST", "/body", json=body) == expected


async def test_an_unknown_parameter_is_named_where_none_is_allowed() -> None:
    expected = ("Unknown parameter: 'colour'.", "colour", "unknown_parameter")
    assert await refused("POST", "/closed", json={"colour": 1}) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ("Missing required parameter: 'limit'.", "limit", "missing_required_parameter")),
        (
            "limit=",
            ("Invalid type for 'limit': expected an integer, but got a string instead.", "limit", "invalid_type"),
        ),
        (
            "limit=a",
            ("Invalid type for 'limit': expected an integer, but got a string instead.", "limit", "invalid_type"),
        ),
        (
            "limit=0",
            (
                "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
                "limit",
                "integer_below_min_value",
            ),
        ),
        (
            "limit=1&order=up",
            ("Invalid value: 'up'. Supported values are: 'asc' and 'desc'.", "order", "invalid_value"),
        ),
    ],
)
async def test_a_bad_query_is_refused(query: str, expected: tuple[str, str, str]) -> None:
    assert await refused("GET", f"/query?{query}") == expected


async def test_a_long_value_is_shown_in_part() -> None:
    message, _, _ = await refused("POST", "/body", json={"endpoint": "x" * 100_000})
    assert "Invalid value: 'xxx" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("name", "status_code", "error"),
    [
        ("invalid", 400, {"message": "Bad.", "param": "metadata.tags", "code": "invalid_type"}),
        ("key", 401, {"message": "Bad key.", "param": None, "code": "invalid_api_key"}),
        ("unknown", 404, {"message": "No such File object: file-1", "param": "id", "code": None}),
        ("conflict", 409, {"message": "Cannot cancel a batch with status 'completed'.", "param": None, "code": None}),
        ("gone", 410, {"message": "This upload has expired.", "param": None, "code": None}),
        ("range", 416, {"message": "Out of range.", "param": None, "code": None}),
    ],
)
async def test_each_error_has_its_status(name: str, status_code: int, error: dict[str, str | None]) -> None:
    async with small_api() as client:
        answer = await client.get(f"/raised/{name}")
    assert answer.status_code == status_code
    assert answer.json() == {"error": {**error, "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("key", "www-authenticate", 'Bearer realm="batchord"'),
        ("conflict", "x-should-retry", "false"),
        ("redis", "retry-after", "5"),
        ("range", "content-range", "bytes */3"),
    ],
)
async def test_an_error_says_in_a_header_what_to_do(name: str, header: str, value: str) -> None:
    async with small_api() as client:
        assert (await client.get(f"/raised/{name}")).headers[header] == value


@pytest.mark.parametrize("name", ["redis", "storage"])
async def test_what_is_away_is_not_shown_to_clients(name: str) -> None:
    async with small_api() as client:
        answer = await client.get(f"/raised/{name}")
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "server_error"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status_code", "message"),
    [
        ("GET", "/v1/x", 404, "Invalid URL (GET /v1/x)"),
        ("POST", "/query/", 404, "Invalid URL (POST /query/)"),
        (
            "DELETE",
            "/query",
            405,
            "Not allowed to DELETE on /query. (HINT: Perhaps you meant to use a different HTTP method?)",
        ),
    ],
)
async def test_a_path_or_method_that_is_not_served_is_an_error_like_any(
    method: str, path: str, status_code: int, message: str
) -> None:
    async with small_api() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (status_code, message)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    if status_code == 405:
        assert answer.headers["allow"] == "GET"
