"""Lines that begin alike are published one after another, and none is left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.order import by_prefix

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = "Once upon a time, and a very long time it was. " * 40


def chat(start: str, end: str) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": start}, {"role": "user", "content": end}], "model": "m"}


def responses(start: str, end: str) -> dict[str, Any]:
    return {"input": end, "instructions": start, "model": "m"}


def completion(start: str, end: str) -> dict[str, Any]:
    return {"prompt": start + end, "model": "m"}


def messages(start: str, end: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": end}], "system": start, "model": "m", "max_tokens": 1}


def ordered(*bodies: dict[str, Any]) -> list[int]:
    return by_prefix([json.dumps(body).encode() for body in bodies])


@pytest.mark.parametrize("body", [chat, responses, completion, messages])
def test_lines_of_one_prefix_are_neighbours_and_one_goes_a_group_ahead(
    body: Callable[[str, str], dict[str, Any]],
) -> None:
    starts = [f"{letter}{LONG}" for letter in "abc"]
    bodies = [body(starts[number % 3], f"{number}") for number in range(9)]
    assert ordered(*bodies) == [0, 1, 3, 6, 2, 4, 7, 5, 8]


def test_another_model_or_other_tools_are_another_prefix() -> None:
    one, other = chat(LONG, "?"), {**chat(LONG, "?"), "model": "n"}
    tools = {**chat(LONG, "?"), "tools": [{"type": "function"}]}
    assert ordered(one, other, tools, one, other, tools) == [0, 1, 3, 2, 4, 5] or ordered(
        one, other, tools, one, other, tools
    ) == [0, 2, 3, 1, 5, 4]


def test_short_prompts_are_sorted_and_equal_ones_stay_in_order() -> None:
    assert ordered(chat("b", "?"), chat("a", "?"), chat("b", "?"), chat("a", "?")) == [1, 0, 3, 2]


@given(st.lists(st.binary(max_size=3).map(lambda start: chat(start.hex() * 600, start.hex()))))
def test_each_line_is_published_once(bodies: list[dict[str, Any]]) -> None:
    assert sorted(ordered(*bodies)) == list(range(len(bodies)))
