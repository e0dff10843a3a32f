"""What a chat completion becomes as the answer of `/v1/responses`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tests.unit.responses_lines import REQUESTS, tool
from workers.providers.seam import ProviderError
from workers.providers.to_responses import to_responses

ASKED = {"model": "m", "input": "hello"}
NOW = 1_800_000_000.5


def completion(message: dict[str, Any] | None = None, finish_reason: object = "stop", **fields: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "hi", **(message or {})}
    choice = {"index": 0, "message": said, "finish_reason": finish_reason, "logprobs": None}
    made = {"id": "chatcmpl-7", "object": "chat.completion", "created": 1_700_000_000, "model": "m-1"}
    return {**made, "choices": [choice], **fields}


def call(number: int, **function: Any) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "f", "arguments": "{}", **function}}


def answered(answer: dict[str, Any], asked: dict[str, Any] | None = None) -> Response:
    """Give the answer as the `openai` package reads it off the wire, once it has looked at all of it."""
    wire = json.dumps(to_responses(asked or ASKED, answer, NOW))
    return Response.model_validate_json(wire)


def test_an_answer_is_the_message_of_a_completed_response() -> None:
    response = answered(completion(usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}))
    assert (response.id, response.object, response.status) == ("resp_7", "response", "completed")
    assert (response.model, response.created_at, response.output_text) == ("m-1", 1_700_000_000, "hi")
    (item,) = response.output
    assert (item.type, item.status) == ("message", "completed")  # type: ignore[union-attr]  # a message has one
    assert (response.error, response.incomplete_details) == (None, None)


def test_the_answer_repeats_what_was_asked() -> None:
    asked = ASKED | {
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "temperature": 0,
        "tools": [tool()],
        "tool_choice": "required",
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": False,
        "max_output_tokens": 9,
    }
    told = answered(completion(), asked).to_dict(mode="json")
    assert {field: told[field] for field in asked if field not in {"model", "input"}} == {
        field: value for field, value in asked.items() if field not in {"model", "input"}
    }


def test_what_was_not_said_is_answered_as_openai_does() -> None:
    response = answered(completion(), ASKED | {"metadata": None, "tools": None})
    assert (response.metadata, response.tools, response.tool_choice) == ({}, [], "auto")
    assert response.parallel_tool_calls is True


def test_usage_is_counted_in_the_names_of_responses() -> None:
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 20,
        "total_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    said = answered(completion(usage=usage)).usage
    assert said is not None
    assert (said.input_tokens, said.output_tokens, said.total_tokens) == (30, 20, 50)
    assert said.input_tokens_details.to_dict() == {"cached_tokens": 12, "cache_write_tokens": 4}
    assert said.output_tokens_details.reasoning_tokens == 8
    assert answered(completion()).usage is None


def test_calls_follow_what_was_said_each_with_its_id() -> None:
    response = answered(completion({"content": "I will", "tool_calls": [call(1), call(2)]}, "tool_calls"))
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert [item.call_id for item in response.output if item.type == "function_call"] == ["call_1", "call_2"]
    assert len({item.id for item in response.output}) == 3


def test_a_message_of_calls_alone_says_nothing() -> None:
    response = answered(completion({"content": None, "tool_calls": [call(1)]}, "tool_calls"))
    assert [item.type for item in response.output] == ["function_call"]


def test_calls_as_lax_servers_write_them_are_told_properly() -> None:
    lax = {"function": {"name": "f", "arguments": {"a": 1}}}
    (item,) = answered(completion({"content": "", "tool_calls": [lax, "?"]}, "tool_calls")).output
    assert item.type == "function_call"
    assert (item.arguments, bool(item.call_id)) == ('{"a":1}', True)
    assert answered(completion({"tool_calls": {}})).output_text == "hi"
    assert answered(completion({"tool_calls": 3})).output_text == "hi"


@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_cut_short_is_incomplete_and_says_why(finish_reason: str, reason: str) -> None:
    response = answered(completion({"tool_calls": [call(1)]}, finish_reason))
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", reason)
    assert [item.to_dict()["status"] for item in response.output] == ["completed", "incomplete"]


@pytest.mark.parametrize("finish_reason", ["stop", "eos", None, 3, ["length"]])
def test_any_other_end_is_an_end(finish_reason: object) -> None:
    assert answered(completion(finish_reason=finish_reason)).status == "completed"


def test_a_refusal_stays_one() -> None:
    (item,) = answered(completion({"content": None, "refusal": "no"})).output
    assert item.type == "message"
    assert [part.to_dict() for part in item.content] == [{"type": "refusal", "refusal": "no"}]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_come_before_the_words(field: str) -> None:
    thought, said = answered(completion({field: "hm"})).output
    assert (thought.type, said.type) == ("reasoning", "message")
    assert thought.to_dict()["content"] == [{"type": "reasoning_text", "text": "hm"}]


def test_an_answer_in_parts_is_its_text() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]
    assert answered(completion({"content": [*parts, {"type": "text", "text": "b"}]})).output_text == "ab"


@pytest.mark.parametrize(
    "answer",
    [{}, {"choices": None}, {"choices": []}, {"choices": [{"text": "a"}]}, {"choices": [{"message": "a"}]}],
)
def test_what_is_no_chat_completion_is_no_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(ProviderError) as raised:
        to_responses(ASKED, answer, NOW)
    assert raised.value.code == "invalid_response"


_COUNT = st.integers(0, 2**40)
_TEXT = st.text(max_size=8)
_COMPLETIONS = st.builds(
    completion,
    st.fixed_dictionaries(
        {"content": st.none() | _TEXT},
        optional={
            "refusal": st.none() | _TEXT,
            "reasoning_content": st.none() | _TEXT,
            "tool_calls": st.none() | st.lists(st.builds(call, _COUNT, name=_TEXT, arguments=_TEXT), max_size=3),
        },
    ),
    st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call"]),
    id=_TEXT,
    service_tier=st.sampled_from([None, "default", "flex"]),
    usage=st.none()
    | st.fixed_dictionaries(
        {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
        optional={
            "prompt_tokens_details": st.none() | st.fixed_dictionaries({}, optional={"cached_tokens": _COUNT}),
            "completion_tokens_details": st.none() | st.fixed_dictionaries({}, optional={"reasoning_tokens": _COUNT}),
        },
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, _COMPLETIONS)
def test_whatever_is_answered_is_what_the_openai_package_calls_a_response(
    asked: dict[str, Any], answer: dict[str, Any]
) -> None:
    ChatCompletion.model_validate(answer)
    response = answered(answer, asked)
    message = answer["choices"][0]["message"]
    assert response.output_text == (message["content"] or "")
    calls = [item for item in response.output if item.type == "function_call"]
    assert [item.arguments or "{}" for item in calls] == [
        called["function"]["arguments"] or "{}" for called in message.get("tool_calls") or []
    ]
    assert response.to_dict(mode="json")["status"] == response.output[-1].to_dict()["status"]
