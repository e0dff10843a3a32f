"""Requests that no SDK sends: broken Unicode, NULs, huge numbers, deep nests, odd names. Each has its answer."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest

from batchord.lifecycle import Status
from tests.integration.api import Api, open_api
from tests.integration.api_batches import REQUESTS, entered, order, refusal
from tests.integration.api_files import BOUNDARY, LINE, MULTIPART, Client, form, remains, upload
from tests.integration.api_routes import NEW_BATCH, ROUTES
from tests.integration.api_uploads import announcement, created

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

JSON = {"content-type": "application/json"}
HALF = "\ud800"
"""Half a surrogate pair: JSON can say it, and no text may hold it."""
MALFORMED = (
    "We could not parse the JSON body of your request. "
    "The API expects a JSON payload, but what was sent was not valid JSON."
)


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path) as api:
        yield api


async def refused(api: Api, path: str, body: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Send a JSON body that is refused with 400, and give message, param and code."""
    answer = await api.post(path, content=json.dumps(body), headers=JSON)  # surrogates as escapes
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["message"], error["param"], error["code"]


@pytest.mark.parametrize(
    ("path", "changes", "param"),
    [
        ("/v1/batches", {"input_file_id": HALF}, "input_file_id"),
        ("/v1/batches", {"endpoint": HALF}, "endpoint"),
        ("/v1/batches", {"completion_window": HALF}, "completion_window"),
        ("/v1/batches", {"metadata": {"a": HALF}}, "metadata.a"),
        ("/v1/batches", {"requests": REQUESTS, "model": HALF}, "model"),
        ("/v1/batches", {"requests": [{"custom_id": HALF, "body": {}}]}, "requests[0].custom_id"),
        ("/v1/uploads", {"filename": HALF}, "filename"),
        ("/v1/uploads", {"purpose": HALF}, "purpose"),
        ("/v1/uploads/upload_1/complete", {"part_ids": ["a", HALF]}, "part_ids[1]"),
        ("/v1/uploads/upload_1/complete", {"part_ids": [], "md5": HALF}, "md5"),
        ("/v1/batches/batch_1/retry-requests", {"custom_ids": [HALF]}, "custom_ids[0]"),
        ("/v1/batches/batch_1/retry-requests", {"request_ids": [HALF]}, "request_ids[0]"),
    ],
)
async def test_a_string_that_is_no_unicode_is_refused(api: Api, path: str, changes: dict[str, Any], param: str) -> None:
    body = announcement() if path == "/v1/uploads" else NEW_BATCH
    message = f"Invalid '{param}': the string is not valid Unicode."
    assert await refused(api, path, {**body, **changes}) == (message, param, "invalid_value")


async def test_a_name_that_is_no_unicode_is_refused_too(api: Api) -> None:
    message, _, code = await refused(api, "/v1/batches", {**NEW_BATCH, "metadata": {HALF: "a"}})
    assert (message.endswith("the string is not valid Unicode."), code) == (True, "invalid_value")


@pytest.mark.parametrize(
    ("changes", "param", "got"),
    [
        ({"bytes": "3"}, "bytes", "an integer, but got a string"),
        ({"bytes": True}, "bytes", "an integer, but got a boolean"),
        ({"bytes": 3.5}, "bytes", "an integer, but got a decimal number"),
        ({"filename": 3}, "filename", "a string, but got an integer"),
        (
            {"expires_after": {"anchor": "created_at", "seconds": "3600"}},
            "expires_after.seconds",
            "an integer, but got a string",
        ),
    ],
)
async def test_a_value_of_json_is_of_its_type_to_the_letter(
    api: Api, changes: dict[str, Any], param: str, got: str
) -> None:
    message = f"Invalid type for '{param}': expected {got} instead."
    assert await refused(api, "/v1/uploads", announcement(**changes)) == (message, param, "invalid_type")


ODD = ["%00", "%ff", "%0d%0aX-A:%20b", "%F0%9F%98%80", "}:lines", "*", "x" * 20_000]
PREFIXES = {"file_id": "file-", "upload_id": "upload_", "batch_id": "batch_", "model": "", "provider": ""}


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "{" in route[1]])
async def test_an_id_of_odd_characters_is_unknown(api: Api, method: str, path: str) -> None:
    for tail in ODD:
        ids = {name: f"{prefix}{tail}" for name, prefix in PREFIXES.items()}
        answer = await api.request(method, path.format(**ids), **ROUTES[method, path])
        assert answer.status_code == 404
        if method != "HEAD":
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert len(answer.text) < 1_500  # what is not known is not shown at any length


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/batches?active_first=true"])
@pytest.mark.parametrize(("after", "status_code"), [("", 400), ("%00", 404), ("%ff", 404), ("x" * 20_000, 404)])
async def test_an_odd_after_is_never_page_one(api: Api, path: str, after: str, status_code: int) -> None:
    await upload(api)
    await entered(api, Status.COMPLETED)
    answer = await api.get(f"{path}{'&' if '?' in path else '?'}after={after}")
    assert answer.status_code == status_code
    assert answer.json()["error"]["type"] == "invalid_request_error"


HUGE = "9" * 4_300
"""The longest number that Python reads."""


@pytest.mark.parametrize("number", ["-1", "-" + HUGE, HUGE, HUGE + "9", "1e9", "nan", "0x10", "1.5", ""])
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/files", ["limit"]),
        ("/v1/batches", ["limit", "created_after", "created_before"]),
        ("/v1/files/{file_id}/content", ["limit", "skip"]),
        ("/v1/batches/{batch_id}/results", ["limit", "skip"]),
    ],
)
async def test_an_odd_number_in_a_query_never_fails(api: Api, path: str, names: list[str], number: str) -> None:
    ids = {"file_id": (await upload(api))["id"], "batch_id": (await entered(api, Status.IN_PROGRESS)).id}
    may_be_large = path.endswith(("content", "results"))
    for name in names:
        answer = await api.get(path.format(**ids), params={name: number})
        assert answer.status_code == (200 if number == HUGE and may_be_large else 400), name
    everything = await api.get(path.format(**ids), params=dict.fromkeys(names, number))
    assert everything.status_code in {200, 400}


async def test_nul_characters_in_metadata_come_back(api: Api) -> None:
    metadata = {"a\0b": "c\0", "\N{GRINNING FACE}": "\r\n\u2028"}
    answer = await api.post("/v1/batches", json=await order(api, metadata=metadata))
    assert (await api.get(f"/v1/batches/{answer.json()['id']}")).json()["metadata"] == metadata


@pytest.mark.parametrize(("depth", "status_code"), [(900, 200), (5_000, 400), (100_000, 400)])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a"}])
async def test_a_body_nested_deep_is_taken_or_refused(
    api: Api, depth: int, status_code: int, headers: dict[str, str]
) -> None:
    nest = '{"a":' * depth + "1" + "}" * depth
    request = {"custom_id": "a", "body": {"model": "m", "messages": [], "x": "nest"}}
    content = json.dumps({**NEW_BATCH, "requests": [request]}).replace('"nest"', nest)
    answer = await api.post("/v1/batches", content=content, headers={**JSON, **headers})
    assert answer.status_code == status_code
    if status_code == 400:
        assert answer.json() == refusal(MALFORMED)


@pytest.mark.parametrize(
    "filename",
    [
        'quote".jsonl',
        "back\\slash.jsonl",
        "../../etc/passwd.jsonl",
        "C:\\in.jsonl",
        "\N{GRINNING FACE} 你好.jsonl",
        "semi;colon.jsonl",
        "per%cent.jsonl",
        "x" * 506 + ".jsonl",
    ],
)
async def test_an_odd_file_name_is_kept_and_harms_nothing(api: Api, filename: str) -> None:
    file = await upload(api, filename=filename)
    assert file["filename"] == filename
    answer = await api.get(f"/v1/files/{file['id']}/content")
    assert answer.content == LINE
    told = answer.headers["content-disposition"].removeprefix("attachment; filename*=utf-8''")
    assert (unquote(told), quote(told, safe="%")) == (filename, told)


async def test_a_name_with_line_ends_adds_no_header_to_a_download(api: Api) -> None:
    filename = "in\r\nX-Injected: yes\r\n\r\n\0.jsonl"
    upload = await created(api, bytes=0, filename=filename)
    completed = (await api.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": []})).json()
    assert completed["file"]["filename"] == filename
    answer = await api.get(f"/v1/files/{completed['file']['id']}/content")
    assert answer.status_code == 200
    assert "x-injected" not in answer.headers
    assert "\n" not in answer.headers["content-disposition"]


async def test_a_file_name_past_the_limit_is_refused_wherever_it_comes_from(api: Api) -> None:
    message = (
        "Invalid 'filename': string too long. Expected a string with maximum length 512, "
        "but got a string with length 513 instead."
    )
    filename = "x" * 507 + ".jsonl"
    expected = refusal(message, "filename", "string_above_max_length")
    assert (await api.post("/v1/uploads", json=announcement(filename=filename))).json() == expected
    answer = await api.post("/v1/files", data={"purpose": "batch"}, files={"file": (filename, LINE)})
    assert (answer.status_code, answer.json()) == (400, expected)
    assert not [name for name in remains(api) if "file-" in name]


async def test_a_field_of_a_form_is_not_held_in_memory_beyond_its_bound(api: Api) -> None:
    start = form(("purpose", None, b""))[: -len(f"\r\n--{BOUNDARY}--\r\n")]
    client = Client(api, [start, *[b"x" * 65_536] * 320], hangs_up=True)
    tracemalloc.start()
    try:
        await client.post("/v1/files")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert remains(api) == []


@pytest.mark.parametrize("header", [b'name="', b'name="file"; filename="'])
async def test_a_part_s_header_past_the_bound_is_refused(api: Api, header: bytes) -> None:
    body = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode() + header + b"x" * 5_000 + b'"\r\n\r\n'
    answer = await api.post("/v1/files", content=body, headers=MULTIPART)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert answer.json()["error"]["message"].startswith("We could not parse the multipart form of your request: ")


async def test_a_part_given_twice_is_refused(api: Api) -> None:
    upload = await created(api)
    body = form(("data", "a", b"first,"), ("data", "b", b"second,"))
    answer = await api.post(f"/v1/uploads/{upload['id']}/parts", content=body, headers=MULTIPART)
    message = "Duplicate parameter: 'data'. Parts are sent one by one."
    assert (answer.status_code, answer.json()) == (400, refusal(message, "data"))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE", "NONSENSE"])
@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/models", "/v1/uploads/upload_1/cancel", "/healthz"])
async def test_a_method_that_is_not_served_is_told(api: Api, method: str, path: str) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, "allow" in answer.headers) == (405, True)
    message = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
    if method != "HEAD":
        assert answer.json() == refusal(message, None, "method_not_supported")
