from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from batchord.routing import Provider
from workers.providers import ProviderClient, Request, open_provider

CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"m","messages":[{"role":"user","content":"a question"}]}'


def simulated(latency_s: float = 0.0, failure_rate: float = 0.0) -> ProviderClient:
    return open_provider(Provider(name="p", kind="simulated", latency_s=latency_s, failure_rate=failure_rate), {})


def line(body: bytes = QUESTION, endpoint: str = CHAT, custom_id: str = "line-1", attempt: int = 1) -> Request:
    return Request(endpoint, body, custom_id, attempt, idempotency_key=custom_id)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "a question"}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a question"}]}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "a question"}]}),
        ("/v1/completions", {"prompt": "a question"}),
        ("/v1/responses", {"input": "a question"}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a question"}]}]}),
        ("/v1/images/generations", {"prompt": "a question"}),
    ],
)
async def test_a_simulated_answer_says_so_and_has_usage(endpoint: str, body: dict[str, Any]) -> None:
    response = await simulated().send(line(json.dumps({"model": "m-1", **body}).encode(), endpoint))
    answer = json.loads(response.body)
    assert (response.status_code, answer["model"], answer["simulated"]) == (200, "m-1", True)
    assert '"[simulated] You said: a question"' in response.body.decode()
    assert 0 < response.usage.input_tokens < response.usage.output_tokens
    assert response.request_id.startswith("req_simulated_")


@pytest.mark.parametrize(
    ("given", "vectors"),
    [("text", 1), (["one", "two", "three"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
async def test_simulated_embeddings_are_one_unit_vector_an_input(given: Any, vectors: int) -> None:
    response = await simulated().send(line(json.dumps({"input": given, "dimensions": 5}).encode(), "/v1/embeddings"))
    items = json.loads(response.body)["data"]
    assert [item["index"] for item in items] == list(range(vectors))
    assert {len(item["embedding"]) for item in items} == {5}
    assert all(math.isclose(math.hypot(*item["embedding"]), 1, abs_tol=1e-4) for item in items)
    assert len({str(item["embedding"]) for item in items}) == vectors


async def test_simulated_moderations_flag_nothing() -> None:
    response = await simulated().send(line(b'{"input":["a","b"]}', "/v1/moderations"))
    assert [result["flagged"] for result in json.loads(response.body)["results"]] == [False, False]


async def test_a_body_of_the_wrong_shape_is_refused_by_the_simulation() -> None:
    response = await simulated().send(line(b'{"messages":"not a list"}'))
    assert response.status_code == 400
    assert "[simulated]" in json.loads(response.body)["error"]["message"]


async def test_the_failure_rate_picks_the_same_lines_again_and_half_of_them_for_good() -> None:
    client = simulated(failure_rate=0.2)
    lines = [f"line-{n}" for n in range(2000)]

    async def failing(attempt: int) -> set[str]:
        sent = [client.send(line(custom_id=custom_id, attempt=attempt)) for custom_id in lines]
        answers = zip(lines, await asyncio.gather(*sent), strict=True)
        return {custom_id for custom_id, response in answers if response.status_code == 500}

    first, again, second, third = [await failing(attempt) for attempt in (1, 1, 2, 3)]
    assert first == again
    assert second == third < first
    assert 0.15 < len(first) / len(lines) < 0.25
    assert 0.35 < len(second) / len(first) < 0.65


async def test_a_simulated_line_takes_about_the_stated_latency() -> None:
    client = simulated(latency_s=0.1)
    responses = await asyncio.gather(*(client.send(line(custom_id=f"line-{n}")) for n in range(50)))
    assert min(response.latency_ms for response in responses) >= 74
    assert all(0 < response.ttfb_ms < response.latency_ms for response in responses)
    assert len({round(response.latency_ms) for response in responses}) > 1


async def test_a_line_gets_the_same_words_again_and_another_line_another_id() -> None:
    client = simulated()
    first, again, other = [await client.send(line(custom_id=custom_id)) for custom_id in ("a", "a", "b")]
    assert json.loads(first.body)["choices"] == json.loads(again.body)["choices"]
    assert json.loads(first.body)["id"] == json.loads(again.body)["id"] != json.loads(other.body)["id"]
