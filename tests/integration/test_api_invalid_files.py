"""Input files that are refused: the code, line, param and message that a batch tells of each, over HTTP.

And that nothing of such a file is sent. The rules themselves are tested one by one in tests/unit/test_validation_*.py.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from batchord.storage import paths
from tests.integration.api import open_api
from tests.integration.api_batches import CHAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.api import Api
    from tests.integration.steps import Site, Sites

PROVIDERS: Final = """
[providers.one]
kind = "simulated"
models = ["one-*"]

[providers.two]
kind = "simulated"
models = ["two-*"]
single_model = true
"""
MAX_LINE_BYTES: Final = 10_000
BOM: Final = b"\xef\xbb\xbf"
GOOD: Final[dict[str, Any]] = {
    "custom_id": "good",
    "method": "POST",
    "url": CHAT,
    "body": {"model": "one-model", "messages": []},
}


def line(**changes: Any) -> bytes:
    """Give a line that is good but for these changes; an ellipsis takes a key away."""
    changed = {**GOOD, **changes}
    return json.dumps({name: value for name, value in changed.items() if value is not ...}).encode()


def body(**changes: Any) -> bytes:
    """Give a line whose body is good but for these changes."""
    changed = {**GOOD["body"], **changes}
    return line(body={name: value for name, value in changed.items() if value is not ...})


def problem(code: str, message: str, param: str | None = None, line: int | None = 1) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def no_json(line: int = 1) -> dict[str, Any]:
    return problem("invalid_json_line", "This line is not parseable as valid JSON.", None, line)


def missing(param: str, line: int = 1) -> dict[str, Any]:
    return problem("missing_required_parameter", f"Missing required parameter: '{param}'.", param, line)


def wrong_type(param: str, expected: str, got: str) -> dict[str, Any]:
    return problem("invalid_request", f"Invalid type for '{param}': expected {expected}, but got {got} instead.", param)


def wrong_length(said: str) -> dict[str, Any]:
    return problem("invalid_request", f"Invalid 'custom_id': {said} instead.", "custom_id")


def duplicate(custom_id: str, line: int) -> dict[str, Any]:
    message = (
        f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch."
    )
    return problem("duplicate_custom_id", message, "custom_id", line)


INVALID_URL: Final = problem(
    "invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"
)
NO_MODEL: Final = problem("invalid_request", "Model parameter is required.", "body.model")
NO_MESSAGES: Final = problem("invalid_request", "Messages parameter is required.", "body.messages")
STREAMING: Final = problem(
    "streaming_unsupported", "Chat Completions: Streaming is not supported in the Batch API.", "body.stream"
)
EMPTY: Final = problem(
    "empty_file",
    "The input file is empty. Please ensure that the batch contains at least one request.",
    line=None,
)
EXPECTED: Final = "Expected a string with"


@asynccontextmanager
async def serving(sites: Sites, folder: Path, **settings: Any) -> AsyncIterator[tuple[Site, Api]]:
    """Give a fleet and the API on the same Redis and storage."""
    providers = folder / "providers.toml"
    providers.write_text(PROVIDERS, encoding="utf-8")
    async with (
        sites.new(providers=providers, max_line_bytes=MAX_LINE_BYTES, **settings) as site,
        open_api(site.settings.redis_url, site.settings.data_dir, providers=providers) as api,
    ):
        yield site, api


async def created(api: Api, content: bytes, endpoint: str = CHAT) -> dict[str, Any]:
    """Upload a file, and give the new batch of it."""
    file = await api.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
    order = {"input_file_id": file.json()["id"], "endpoint": endpoint, "completion_window": "24h"}
    answer = await api.post("/v1/batches", json=order)
    assert (answer.status_code, answer.json().get("status")) == (200, "validating")  # bad content is no create error
    batch: dict[str, Any] = answer.json()
    return batch


async def ended(site: Site, api: Api, batch_id: str) -> dict[str, Any]:
    await site.drive()
    batch: dict[str, Any] = (await api.get(f"/v1/batches/{batch_id}")).json()
    return batch


def assert_refused(site: Site, batch: dict[str, Any], problems: list[dict[str, Any]]) -> None:
    assert (batch["status"], batch["errors"]) == ("failed", {"object": "list", "data": problems})
    assert batch["failed_at"] >= batch["created_at"]
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    later = ("in_progress_at", "finalizing_at", "completed_at", "output_file_id", "error_file_id", "model")
    assert {batch[name] for name in later} == {None}
    assert site.upstream.calls == []


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        pytest.param(b"hello", [no_json()], id="no JSON"),
        pytest.param(line()[:-1], [no_json()], id="cut off"),
        pytest.param(b"[1]", [no_json()], id="an array"),
        pytest.param(b'"text"', [no_json()], id="a string"),
        pytest.param(line(custom_id="\xe9").replace(b"\\u00e9", b"\xe9"), [no_json()], id="not UTF-8"),
        pytest.param(b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", [no_json()], id="a brace too many"),
        pytest.param(line(custom_id=...), [missing("custom_id")], id="no custom_id"),
        pytest.param(line(method=...), [missing("method")], id="no method"),
        pytest.param(line(url=...), [missing("url")], id="no url"),
        pytest.param(line(body=...), [missing("body")], id="no body"),
        pytest.param(line(custom_id=7), [wrong_type("custom_id", "a string", "a number")], id="custom_id number"),
        pytest.param(line(custom_id=None), [wrong_type("custom_id", "a string", "null")], id="custom_id null"),
        pytest.param(
            line(custom_id=""),
            [wrong_length(f"empty string. {EXPECTED} minimum length 1, but got an empty string")],
            id="custom_id empty",
        ),
        pytest.param(
            line(custom_id="x" * 513),
            [wrong_length(f"string too long. {EXPECTED} maximum length 512, but got a string with length 513")],
            id="custom_id too long",
        ),
        pytest.param(line() + b"\n" + line(), [duplicate("good", 2)], id="duplicate"),
        pytest.param(
            line(method="GET"),
            [problem("invalid_method", "Invalid method: 'GET'. Only 'POST' is supported.", "method")],
            id="method",
        ),
        pytest.param(line(url="/v1/embeddings"), [INVALID_URL], id="another endpoint"),
        pytest.param(line(url=f"https://api.openai.com{CHAT}"), [INVALID_URL], id="a whole URL"),
        pytest.param(line(url=CHAT + "/"), [INVALID_URL], id="a slash too many"),
        pytest.param(line(body=[]), [wrong_type("body", "an object", "an array")], id="body array"),
        pytest.param(line(body=None), [wrong_type("body", "an object", "null")], id="body null"),
        pytest.param(body(model=...), [NO_MODEL], id="no model"),
        pytest.param(body(model=""), [NO_MODEL], id="model empty"),
        pytest.param(body(model=None), [NO_MODEL], id="model null"),
        pytest.param(body(model=4), [wrong_type("body.model", "a string", "a number")], id="model number"),
        pytest.param(body(messages=...), [NO_MESSAGES], id="no messages"),
        pytest.param(body(messages=None), [NO_MESSAGES], id="messages null"),
        pytest.param(body(stream=True), [STREAMING], id="stream"),
        pytest.param(body(stream="true"), [STREAMING], id="stream as a string"),
        pytest.param(
            body(model="gpt-unknown"),
            [
                problem(
                    "model_not_found",
                    "The provided model 'gpt-unknown' is not supported by the Batch API.",
                    "body.model",
                )
            ],
            id="unknown model",
        ),
        pytest.param(
            body(model="two-a") + b"\n" + line(custom_id="b", body={"model": "two-b", "messages": []}),
            [
                problem(
                    "mismatched_model",
                    "The model 'two-b' for this request does not match the rest of the batch. "
                    "Each batch must contain requests for a single model.",
                    "body.model",
                    2,
                )
            ],
            id="second model",
        ),
        pytest.param(
            body(messages="x" * MAX_LINE_BYTES),
            [problem("line_too_long", f"This line is longer than {MAX_LINE_BYTES} bytes.")],
            id="line too long",
        ),
        pytest.param(b"", [EMPTY], id="empty file"),
        pytest.param(b"\n \r\n\t\n", [EMPTY], id="blank lines only"),
        pytest.param(BOM, [EMPTY], id="byte-order mark only"),
    ],
)
async def test_a_bad_file_fails_its_batch_with_the_reason(
    sites: Sites, tmp_path: Path, content: bytes, problems: list[dict[str, Any]]
) -> None:
    async with serving(sites, tmp_path) as (site, api):
        batch = await created(api, content)
        assert_refused(site, await ended(site, api, batch["id"]), problems)


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("/v1/responses", "Responses"),
        ("/v1/completions", "Completions"),
        ("/v1/images/generations", "Images"),
        ("/v1/images/edits", "Images"),
    ],
)
async def test_streaming_is_refused_in_the_endpoint_s_name(
    sites: Sites, tmp_path: Path, endpoint: str, name: str
) -> None:
    content = line(url=endpoint, body={"model": "one-model", "stream": True})
    async with serving(sites, tmp_path) as (site, api):
        batch = await created(api, content, endpoint)
        refused = problem(
            "streaming_unsupported", f"{name}: Streaming is not supported in the Batch API.", "body.stream"
        )
        assert_refused(site, await ended(site, api, batch["id"]), [refused])


async def test_each_bad_line_is_told_by_the_number_that_an_editor_shows(sites: Sites, tmp_path: Path) -> None:
    lines = [
        BOM + line(),
        b"",
        line(custom_id=...),
        line() + b"\r",
        b"  \r",
        b"nonsense",
        body(stream=True),
        line(custom_id="b", url="/v1/embeddings", method="GET", body=...),
        line(custom_id="\N{GRINNING FACE}"),
        line(custom_id="\N{GRINNING FACE}"),
        b"",
    ]
    expected = [
        missing("custom_id", 3),
        duplicate("good", 4),
        no_json(6),
        {**STREAMING, "line": 7},
        problem("invalid_method", "Invalid method: 'GET'. Only 'POST' is supported.", "method", 8),
        duplicate("\N{GRINNING FACE}", 10),
    ]
    async with serving(sites, tmp_path) as (site, api):
        batch = await created(api, b"\n".join(lines))
        assert_refused(site, await ended(site, api, batch["id"]), expected)


async def test_of_many_bad_lines_the_first_hundred_are_told_and_how_many_more_there_are(
    sites: Sites, tmp_path: Path
) -> None:
    expected = [no_json(number) for number in range(1, 101)]
    expected[-1]["message"] += " (50 more problems are not listed)"
    async with serving(sites, tmp_path) as (site, api):
        batch = await created(api, b"bad\n" * 150)
        assert_refused(site, await ended(site, api, batch["id"]), expected)


async def test_a_file_of_too_many_lines_is_refused_and_blank_ones_do_not_count(sites: Sites, tmp_path: Path) -> None:
    lines = [line(custom_id=str(number)) for number in range(3)]
    refused = problem(
        "too_many_tasks", "The input file contains more than 2 requests, the most that one batch may hold.", line=None
    )
    async with serving(sites, tmp_path, max_lines=2) as (site, api):
        batch = await created(api, b"\n".join(lines))
        assert_refused(site, await ended(site, api, batch["id"]), [refused])
        batch = await created(api, b"\n\n".join([b"", *lines[:2], b""]))
        assert (await ended(site, api, batch["id"]))["request_counts"]["total"] == 2


async def test_an_input_whose_bytes_are_gone_fails_its_batch(sites: Sites, tmp_path: Path) -> None:
    async with serving(sites, tmp_path) as (site, api):
        batch = await created(api, line())
        file_id = batch["input_file_id"]
        await api.backend.blobs.delete([paths.file(file_id)])
        message = f"Cannot find file {file_id}, or the organization does not have access to it."
        gone = problem("invalid_request", message, "file_id", None)
        assert_refused(site, await ended(site, api, batch["id"]), [gone])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(BOM + line(), id="byte-order mark"),
        pytest.param(b"\r\n\n" + line() + b"\r\n \n", id="blank lines"),
        pytest.param(body(stream=False), id="stream false"),
        pytest.param(body(stream=None), id="stream null"),
        pytest.param(body(temperature="hot"), id="what is the provider's to refuse"),
        pytest.param(line(unknown=1), id="unknown key"),
        pytest.param(line(custom_id="\N{GRINNING FACE}" * 512), id="as many characters as may be"),
        pytest.param(line(custom_id="\0\u2028'\""), id="odd characters"),
    ],
)
async def test_a_file_that_only_looks_odd_is_run(sites: Sites, tmp_path: Path, content: bytes) -> None:
    async with serving(sites, tmp_path) as (site, api):
        batch = await ended(site, api, (await created(api, content))["id"])
        assert (batch["status"], batch["errors"]) == ("completed", None)
        assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
        output = await api.get(f"/v1/files/{batch['output_file_id']}/content")
        wanted = json.loads(content.removeprefix(BOM).strip())["custom_id"]
        assert [json.loads(each)["custom_id"] for each in output.content.splitlines()] == [wanted]
