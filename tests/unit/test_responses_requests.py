"""What a request for `/v1/responses` becomes as a chat completion, and what cannot become one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from tests.typed_dicts import mismatch
from tests.unit.responses_lines import PNG, REQUESTS, tool
from workers.providers.from_responses import from_responses
from workers.providers.refusals import RefusedError


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "hello", **fields}


def messages(*items: Any) -> Any:
    return from_responses(request(input=list(items)))["messages"]


def user(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": list(parts)}


def call(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"call_{number}", "name": "f", "arguments": "{}", **fields}


def called(number: int) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def refused(fields: dict[str, Any]) -> RefusedError:
    with pytest.raises(RefusedError) as raised:
        from_responses(fields)
    return raised.value


def test_text_is_what_the_user_says_and_instructions_come_before_it() -> None:
    assert from_responses(request(instructions="be brief")) == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    }


@pytest.mark.parametrize(
    ("fields", "becomes"),
    [
        ({"max_output_tokens": 7}, {"max_tokens": 7}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
        ({"user": "u", "service_tier": "flex"}, {"user": "u", "service_tier": "flex"}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": None, "summary": None}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        (
            {"tools": [tool(description="d", strict=None)], "tool_choice": {"type": "function", "name": "f"}},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "description": "d",
                            "parameters": {"type": "object", "properties": {}},
                        },
                    }
                ],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"store": True, "metadata": {"a": "b"}, "max_tool_calls": 3}, {}),
        ({"background": False, "stream": False, "truncation": "disabled", "include": [], "conversation": None}, {}),
    ],
)
def test_a_field_becomes_what_means_the_same(fields: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert from_responses(request(**fields)) == from_responses(request()) | becomes


def test_tools_go_with_what_is_said_of_their_calls() -> None:
    chat = from_responses(request(tools=[tool()], tool_choice="auto", parallel_tool_calls=False))
    assert (len(chat["tools"]), chat["tool_choice"], chat["parallel_tool_calls"]) == (1, "auto", False)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_rules_are_those_of_the_system(role: str) -> None:
    assert messages({"role": role, "content": "x"}) == [{"role": "system", "content": "x"}]


def test_a_single_text_is_said_as_text_and_several_parts_stay_parts() -> None:
    assert messages(user({"type": "input_text", "text": "a"}))[0]["content"] == "a"
    said = messages(
        user(
            {"type": "input_text", "text": "a"},
            {"type": "input_image", "image_url": PNG, "detail": "auto", "file_id": None},
            {"type": "input_image", "image_url": "https://h/i.png", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
        )
    )
    assert said[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
    ]


def test_earlier_output_is_said_by_the_assistant_without_its_marks() -> None:
    text = {"type": "output_text", "text": "so", "annotations": [{"type": "url_citation"}], "logprobs": []}
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}
    assert messages(message, {"role": "user", "content": "and?"}) == [
        {"role": "assistant", "content": "so"},
        {"role": "user", "content": "and?"},
    ]


def test_calls_that_came_together_stay_in_one_message_and_each_answer_names_its_call() -> None:
    said = messages(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "I will"},
        call(1, id="fc_1", status="completed"),
        call(2),
        {"type": "function_call_output", "call_id": "call_1", "output": "one"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "two"}]},
        call(3),
    )
    assert said == [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "I will", "tool_calls": [called(1), called(2)]},
        {"role": "tool", "tool_call_id": "call_1", "content": "one"},
        {"role": "tool", "tool_call_id": "call_2", "content": "two"},
        {"role": "assistant", "content": None, "tool_calls": [called(3)]},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"stream": True}, "stream"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_k": 3}, "top_k"),
        ({"instructions": ["x"]}, "instructions"),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, "reasoning.summary"),
        ({"reasoning": "low"}, "reasoning"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"tools": {}}, "tools"),
        ({"tools": [tool(), {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [tool(name=None)]}, "tools[0].name"),
        ({"tools": [tool(defer_loading=True)]}, "tools[0].defer_loading"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["hello"]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input[0].type"),
        ({"input": [{"type": ["message"], "content": "x"}]}, "input[0].type"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "name": "bob"}]}, "input[0].name"),
        ({"input": [user({"type": "input_audio", "input_audio": {}})]}, "input[0].content[0].type"),
        ({"input": [user({"type": "input_image", "file_id": "file-1"})]}, "input[0].content[0].file_id"),
        ({"input": [user({"type": "input_image", "detail": "low"})]}, "input[0].content[0].image_url"),
        (
            {"input": [user({"type": "input_image", "image_url": PNG, "detail": "original"})]},
            "input[0].content[0].detail",
        ),
        ({"input": [user({"type": "input_file", "file_url": "https://h/a"})]}, "input[0].content[0].file_url"),
        ({"input": [user("a")]}, "input[0].content[0]"),
        ({"input": [{**call(1), "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{**call(1), "namespace": "n"}]}, "input[0].namespace"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
            "input[0].output[0].type",
        ),
    ],
)
def test_what_a_chat_completion_cannot_say_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    error = refused(request(**fields))
    assert error.param == param
    assert f"'{param}'" in error.message


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS)
def test_whatever_is_asked_for_becomes_what_the_openai_package_calls_a_request(asked: dict[str, Any]) -> None:
    chat = from_responses(asked)
    assert mismatch(chat, CompletionCreateParamsNonStreaming) is None
    said = repr(chat["messages"])
    for item in asked["input"] if isinstance(asked["input"], list) else []:
        text = item.get("content") or item.get("output")
        assert not isinstance(text, str) or repr(text) in said
