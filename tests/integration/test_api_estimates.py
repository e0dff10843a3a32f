"""Cost estimates over HTTP: what a batch of an input file may take, read from the file alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from batchord.contract import FileObject, new_file_id
from batchord.state import files
from batchord.storage import paths
from tests.integration.api import open_api

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

    Estimate = Callable[[Sequence[object]], Coroutine[Any, Any, dict[str, Any]]]

PROVIDERS = """
[providers.one]
kind = "simulated"
models = ["one-*"]
prices = { "one-model" = { input = 1, cached = 0.5, output = 2 } }

[providers.two]
kind = "simulated"
models = ["two-*"]
"""
RAW = b'{"custom_id":"d","method":"POST","url":"/v1/completions","body":{"model":"one-model","prompt":%s}}'
TEXT = "x" * 40
TEN_TOKENS = [{"content": TEXT}]


@pytest.fixture
def estimate(valkey: EmbeddedValkey, tmp_path: Path) -> Estimate:
    """Give what the API says to a file of these lines: bodies, or raw text."""
    (tmp_path / "providers.toml").write_text(PROVIDERS)

    async def ask(lines: Sequence[object]) -> dict[str, Any]:
        raw = [each if isinstance(each, bytes) else msgspec.json.encode(each) for each in lines]
        content = b"".join(each + b"\n" for each in raw)
        file = FileObject(
            id=new_file_id(), bytes=len(content), created_at=int(time.time()), filename="in.jsonl", purpose="batch"
        )
        async with open_api(valkey.url, tmp_path, providers=tmp_path / "providers.toml") as api:
            await api.backend.blobs.put(paths.file(file.id), content)
            await api.backend.state.run_all(files.write(file))
            answer = await api.post(f"/v1/files/{file.id}/cost-estimate", headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert (found["object"], found["file_id"], found["currency"]) == ("file.cost_estimate", file.id, "USD")
        return found

    return ask


def request(url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    given = {"model": "one-model", **body}
    return {"custom_id": f"id-{id(given)}", "method": "POST", "url": url, "body": given}


def chat(**body: Any) -> dict[str, Any]:
    return request(messages=TEN_TOKENS, **body)


async def test_requests_are_summed_by_model(estimate: Estimate) -> None:
    found = await estimate([chat(max_tokens=5), chat(max_completion_tokens=7, n=2), chat(model="two-m", max_tokens=1)])
    one = {
        "provider": "one",
        "model": "one-model",
        "requests": 2,
        "input_tokens": 20,
        "max_output_tokens": 19,
        "min_cost": pytest.approx(20e-6),
        "max_cost": pytest.approx(58e-6),
    }
    two = {
        "provider": "two",
        "model": "two-m",
        "requests": 1,
        "input_tokens": 10,
        "max_output_tokens": 1,
        "min_cost": None,
        "max_cost": None,
    }
    assert found["models"] == [one, two]
    assert (found["requests"], found["invalid_requests"], found["input_tokens"]) == (3, 0, 30)
    assert (found["max_output_tokens"], found["min_cost"], found["max_cost"]) == (20, None, None)


async def test_a_request_that_bounds_nothing_leaves_only_the_lower_cost(estimate: Estimate) -> None:
    found = await estimate([chat(max_tokens=5), chat()])
    assert (found["max_output_tokens"], found["max_cost"]) == (None, None)
    assert found["min_cost"] == pytest.approx(20e-6)


async def test_bad_lines_are_counted_and_harm_nothing(estimate: Estimate) -> None:
    nested = RAW % (b"[" * 9_000 + b"]" * 9_000)
    bad = [b"{", b"[]", b"\xff", {"custom_id": "a"}, chat(model="three-m"), chat(stream=True), chat(model=7), nested]
    found = await estimate([*bad, b"", chat()])
    assert (found["requests"], found["invalid_requests"], found["input_tokens"]) == (1, 8, 10)


async def test_a_body_that_is_nested_very_deep_is_estimated_by_its_size(estimate: Estimate) -> None:
    found = await estimate([RAW % (b"[" * 800 + b"]" * 800)])
    assert (found["requests"], found["invalid_requests"], found["max_output_tokens"]) == (1, 0, None)
    assert found["input_tokens"] == pytest.approx(400, abs=12)


@pytest.mark.parametrize(
    ("line", "input_tokens", "max_output_tokens"),
    [
        (chat(max_tokens="many"), 10, None),
        (chat(max_tokens=None, max_completion_tokens=3), 10, 3),
        (chat(max_tokens=3, n=0), 10, 3),
        (chat(max_tokens=-3), 10, 0),
        (request(messages=[{"content": [{"text": TEXT}, {"image_url": {"url": "data:" + "A" * 9_999}}]}]), 10, None),
        (request(messages=[{"content": "я" * 4}, {"content": "x"}]), 3, None),
        (request(messages=[], tools=[{"n": "x" * 30}]), 10, None),
        (request("/v1/responses", input=TEXT, instructions=TEXT, max_output_tokens=9), 20, 9),
        (request("/v1/completions", prompt=[TEXT, "x"], max_tokens=9), 11, 9),
        (request("/v1/embeddings", input=[TEXT, TEXT]), 20, 0),
        (request("/v1/embeddings", input=[1, 2, 3]), 3, 0),
        (request("/v1/embeddings", input=[[1, 2], [3]]), 3, 0),
    ],
)
async def test_tokens_are_estimated_from_the_text(
    estimate: Estimate, line: dict[str, Any], input_tokens: int, max_output_tokens: int | None
) -> None:
    found = await estimate([line])
    assert (found["requests"], found["input_tokens"]) == (1, input_tokens)
    assert found["max_output_tokens"] == max_output_tokens


async def test_a_file_of_ever_new_models_has_an_answer_of_bounded_size(estimate: Estimate) -> None:
    found = await estimate([chat(model=f"one-{n}") for n in range(1_200)])
    assert len(found["models"]) == 1_001
    assert found["models"][0] == found["models"][0] | {"model": "", "requests": 200, "input_tokens": 2_000}
    assert found["requests"] == 1_200


async def test_an_empty_file_takes_nothing(estimate: Estimate) -> None:
    found = await estimate([])
    assert (found["requests"], found["min_cost"], found["max_cost"], found["models"]) == (0, 0.0, 0.0, [])


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_file_that_is_not_there_has_no_estimate(valkey: EmbeddedValkey, tmp_path: Path, body: bytes) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        answer = await api.post("/v1/files/file-none/cost-estimate", content=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "No such File object: file-none")


async def test_a_file_without_bytes_is_not_there(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    file = FileObject(id=new_file_id(), bytes=0, created_at=int(time.time()), filename="out.jsonl", purpose="batch")
    async with open_api(valkey.url, tmp_path) as api:
        await api.backend.state.run_all(files.write(file))
        answer = await api.post(f"/v1/files/{file.id}/cost-estimate")
    assert answer.status_code == 404
