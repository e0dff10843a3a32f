from __future__ import annotations

from typing import Any

import msgspec
import pytest

from batchord.items import ItemError, encode_items


def encoded(*items: Any, model: str | None = "m", endpoint: str | None = None) -> list[dict[str, Any]]:
    content = b"".join(encode_items(items, model=model, endpoint=endpoint))
    return [msgspec.json.decode(line) for line in content.splitlines()]


def test_a_simple_item_becomes_a_chat_request_with_its_further_fields() -> None:
    item = {"custom_id": "a", "message": "Hi", "temperature": 0, "max_tokens": 5, "seed": 7}
    assert encoded(item) == [
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": "Hi"}],
                "temperature": 0,
                "max_tokens": 5,
                "seed": 7,
            },
        }
    ]


@pytest.mark.parametrize(
    ("endpoint", "prompt"),
    [
        ("/v1/embeddings", {"input": "Hi"}),
        ("/v1/moderations", {"input": "Hi"}),
        ("/v1/responses", {"instructions": "Be brief", "input": "Hi"}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/messages", {"system": "Be brief", "messages": [{"role": "user", "content": "Hi"}]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]},
        ),
    ],
)
def test_the_message_takes_the_place_that_the_endpoint_has_for_it(endpoint: str, prompt: dict[str, Any]) -> None:
    (line,) = encoded({"custom_id": "a", "message": "Hi", "system": "Be brief"}, endpoint=endpoint)
    assert line["url"] == endpoint
    assert line["body"] == {"model": "m", **prompt}


def test_a_whole_request_keeps_its_own_words() -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "own", "input": [1]}}
    assert encoded(line) == [line]


def test_a_missing_custom_id_is_the_request_s_number() -> None:
    assert [line["custom_id"] for line in encoded({"message": "x"}, {"message": "y"})] == ["request-1", "request-2"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("text", "Request 1 is a str"),
        ({"custom_id": "a"}, "either a body"),
        ({"custom_id": "a", "body": {}, "message": "x"}, "either a body"),
        ({"custom_id": "a", "message": {1, 2}.__iter__()}, "cannot be written as JSON"),
    ],
)
def test_a_request_of_neither_form_is_refused_by_its_number(item: Any, said: str) -> None:
    with pytest.raises(ItemError, match=said):
        encoded(item)


def test_many_requests_come_in_chunks_of_whole_lines() -> None:
    items = ({"message": "x" * 1000} for _ in range(5000))
    chunks = list(encode_items(items, model="m", endpoint=None))
    assert len(chunks) > 3
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert sum(chunk.count(b"\n") for chunk in chunks) == 5000
