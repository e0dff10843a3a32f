from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.typed_dicts import mismatch
from workers.providers.refusals import RefusedError
from workers.providers.to_messages import to_messages

HI = [{"role": "user", "content": "hi"}]
F = {"type": "function", "function": {"name": "f"}}
GONE_FROM_THE_TYPES = ("temperature", "top_p")  # of the package, not of the service


def translated(**fields: Any) -> dict[str, Any]:
    """Translate a request, see that Anthropic's package would send the result, and give it."""
    body = json.dumps({"model": "claude", "messages": HI, **fields}).encode()
    asked: dict[str, Any] = json.loads(to_messages(body, default_max_tokens=4096))
    typed = {name: value for name, value in asked.items() if name not in GONE_FROM_THE_TYPES}
    assert mismatch(typed, MessageCreateParamsNonStreaming) is None
    return asked


def conversation(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = translated(messages=messages)["messages"]
    return turns


def refusal(**fields: Any) -> RefusedError:
    with pytest.raises(RefusedError) as raised:
        translated(**fields)
    assert "Anthropic" in raised.value.message or "arguments" in raised.value.message
    return raised.value


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def call(arguments: str = "{}", key: str = "call_1") -> dict[str, Any]:
    return {"id": key, "type": "function", "function": {"name": "f", "arguments": arguments}}


def tool_use(asked: dict[str, Any], key: str = "call_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": key, "name": "f", "input": asked}


def result(content: str, key: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": key, "content": content}


def tool_result(said: str, key: str = "call_1") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": key, "content": [text(said)]}


def test_a_plain_question_needs_nothing_but_the_tokens_of_its_answer() -> None:
    assert translated() == {
        "model": "claude",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("hi")]}],
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 8, "max_tokens": 7}, {"max_tokens": 8}),
        ({"max_completion_tokens": None, "max_tokens": None}, {"max_tokens": 4096}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 1.7, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["END", "\n", "", "STOP"]}, {"stop_sequences": ["END", "STOP"]}),
        ({"stop": ["\n"]}, {}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"user": "u-1", "safety_identifier": "s-1"}, {"metadata": {"user_id": "s-1"}}),
        ({"metadata": {"team": "a"}}, {}),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"reasoning_effort": "xhigh"}, {"output_config": {"effort": "xhigh"}}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        ),
        ({"n": 1, "logprobs": False, "audio": None, "functions": None, "modalities": ["text"], "stream": False}, {}),
        ({"seed": 1, "presence_penalty": 1, "frequency_penalty": 1, "logit_bias": {"1": 1}, "store": True}, {}),
        ({"service_tier": "flex", "prediction": {"type": "content", "content": "x"}, "verbosity": "low"}, {}),
    ],
)
def test_an_option_is_said_in_anthropic_s_words_or_is_a_hint_that_is_dropped(
    fields: dict[str, Any], said: dict[str, Any]
) -> None:
    assert translated(**fields) == translated() | said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, {"tool_choice": {"type": "auto"}}),
        ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        ({"tool_choice": F}, {"tool_choice": {"type": "tool", "name": "f"}}),
        ({"parallel_tool_calls": True}, {"tool_choice": {"type": "auto"}}),
        ({"parallel_tool_calls": False}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": F},
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
        ),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    ],
)
def test_the_choice_among_tools_is_kept(fields: dict[str, Any], said: dict[str, Any]) -> None:
    tools = {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}
    assert translated(tools=[F], **fields) == translated() | tools | said


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tool_choice": "auto", "parallel_tool_calls": False}])
def test_without_tools_a_choice_of_none_is_not_said(fields: dict[str, Any]) -> None:
    assert translated(**fields) == translated()


def test_a_tool_keeps_its_description_its_strictness_and_its_schema_to_the_digit() -> None:
    schema = '{"properties": {"a": {"minimum": 1.10, "maximum": 123456789012345678901234567890}}}'
    tool = '{"type": "function", "function": {"name": "f", "description": "d", "strict": true, "parameters": %s}}'
    body = f'{{"model": "m", "messages": [], "tools": [{tool % schema}]}}'.encode()
    said = to_messages(body, 1)
    assert b'{"a": {"minimum": 1.10, "maximum": 123456789012345678901234567890}}' in said
    (said_tool,) = json.loads(said)["tools"]
    assert (said_tool["name"], said_tool["description"], said_tool["strict"]) == ("f", "d", True)
    assert said_tool["input_schema"]["type"] == "object"


def test_what_the_operator_says_anywhere_comes_before_all_else() -> None:
    asked = translated(
        messages=[
            {"role": "system", "content": "One."},
            *HI,
            {"role": "developer", "content": [text("Two."), text("Three.")]},
            {"role": "system", "content": " "},
        ]
    )
    assert asked["system"] == "One.\nTwo.\nThree."
    assert asked["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_texts_and_images_keep_their_order() -> None:
    data, url = "data:image/PNG;base64,iVBORw0KGgo=", "https://example.com/a,b.png"
    assert conversation(user(text("Look:"), image(data), image(url), text("What is it?"))) == [
        user(
            text("Look:"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "image", "source": {"type": "url", "url": url}},
            text("What is it?"),
        )
    ]


def test_results_of_calls_share_one_turn_of_the_user_with_what_follows() -> None:
    assert conversation(
        *HI,
        {"role": "assistant", "content": "I ask.", "tool_calls": [call('{"a": [1.5]}'), call("", "call_2")]},
        result("42"),
        result("", "call_2"),
        {"role": "user", "content": "Go on."},
    ) == [
        {"role": "user", "content": [text("hi")]},
        {"role": "assistant", "content": [text("I ask."), tool_use({"a": [1.5]}), tool_use({}, "call_2")]},
        {
            "role": "user",
            "content": [tool_result("42"), {"type": "tool_result", "tool_use_id": "call_2"}, text("Go on.")],
        },
    ]


def test_the_digits_of_arguments_are_kept() -> None:
    messages = [{"role": "assistant", "tool_calls": [call('{"a": 1.10, "b": 123456789012345678901234567890}')]}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    assert b'"input":{"a": 1.10, "b": 123456789012345678901234567890}' in to_messages(body, 1)


def test_texts_without_words_are_left_out_since_the_service_refuses_them() -> None:
    assert conversation(
        user(text(""), text("hi"), text("\n")),
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "still there?"},
    ) == [user(text("hi"), text("still there?"))]


def test_what_an_assistant_refused_is_what_it_said() -> None:
    assert conversation(
        *HI,
        {"role": "assistant", "content": None, "refusal": "I can't."},
        *HI,
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I won't."}]},
    )[1::2] == [
        {"role": "assistant", "content": [text("I can't.")]},
        {"role": "assistant", "content": [text("I won't.")]},
    ]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("n", {"n": 2}),
        ("logprobs", {"logprobs": True}),
        ("top_logprobs", {"top_logprobs": 5}),
        ("audio", {"audio": {"voice": "alloy", "format": "mp3"}}),
        ("modalities[1]", {"modalities": ["text", "audio"]}),
        ("functions", {"functions": [{"name": "f"}]}),
        ("web_search_options", {"web_search_options": {}}),
        ("max_token", {"max_token": 7}),
        ("temperature", {"temperature": "hot"}),
        ("reasoning_effort", {"reasoning_effort": "extreme"}),
        ("response_format.type", {"response_format": {"type": "json_object"}}),
        ("response_format.json_schema.schema", {"response_format": {"type": "json_schema", "json_schema": {}}}),
        ("tools[0].type", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}),
        ("tool_choice.type", {"tools": [F], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}),
        ("messages", {"messages": "hi"}),
        ("messages[1].role", {"messages": [*HI, {"role": "function", "name": "f", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content[0].type", {"messages": [user({"type": "input_audio", "input_audio": {}})]}),
        ("messages[0].content[0].type", {"messages": [user({"type": "file", "file": {}})]}),
        ("messages[0].content[1].image_url.url", {"messages": [user(text("x"), image("data:image/bmp;base64,AA"))]}),
        ("messages[0].content[0].image_url.url", {"messages": [user(image("file:///etc/passwd"))]}),
        (
            "messages[0].tool_calls[1].type",
            {"messages": [{"role": "assistant", "tool_calls": [call(), {"type": "custom"}]}]},
        ),
        (
            "messages[0].tool_calls[1].function.arguments",
            {"messages": [{"role": "assistant", "tool_calls": [call(), call("[1]")]}]},
        ),
        (
            "messages[0].tool_calls[0].function.arguments",
            {"messages": [{"role": "assistant", "tool_calls": [call('{"a": ')]}]},
        ),
        ("messages[0].audio", {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}),
        ("messages[0].function_call", {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_place(param: str, fields: dict[str, Any]) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert param in error.message


_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | WORDS, st.lists, max_leaves=5)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
TEXTS = st.builds(text, WORDS)
IMAGES = st.sampled_from(["https://h/x.png", "http://h/x", "data:image/webp;base64,AAAA"]).map(image)
CALLS = st.builds(call, OBJECTS.map(json.dumps), st.sampled_from(["call_1", "call_2"]))
FUNCTIONS = st.fixed_dictionaries(
    {"name": WORDS}, optional={"description": WORDS, "parameters": OBJECTS, "strict": st.none() | st.booleans()}
)
TOOLS = st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTIONS})
ASSISTANTS = {"content": WORDS | st.none() | st.lists(TEXTS, max_size=2), "tool_calls": st.lists(CALLS, max_size=2)}
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer"]), "content": WORDS | st.lists(TEXTS, max_size=2)}
    ),
    st.fixed_dictionaries({"role": st.just("user"), "content": WORDS | st.lists(TEXTS | IMAGES, max_size=3)}),
    st.fixed_dictionaries({"role": st.just("assistant")}, optional=ASSISTANTS),
    st.builds(result, WORDS),
)
REQUESTS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, max_size=5)},
    optional={
        "max_tokens": st.none() | st.integers(1, 10**6),
        "temperature": st.floats(0, 2),
        "stop": st.none() | WORDS | st.lists(WORDS, max_size=4),
        "tools": st.lists(TOOLS, max_size=2),
        "tool_choice": st.sampled_from(["auto", "none", "required", F]),
        "parallel_tool_calls": st.booleans(),
        "reasoning_effort": st.sampled_from([None, "none", "minimal", "low", "medium", "high", "xhigh", "max"]),
        "user": WORDS,
    },
)


def texts_of(said: object) -> list[str]:
    """Give every text with words, in its order, wherever it is said."""
    if isinstance(said, dict) and isinstance(said.get("text"), str):
        return [said["text"]] if said["text"].strip() else []
    if isinstance(said, dict):
        return texts_of(said.get("content"))
    if isinstance(said, list):
        return [found for item in said for found in texts_of(item)]
    return [said] if isinstance(said, str) and said.strip() else []


def calls_of(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [block["input"] for turn in asked for block in turn["content"] if block["type"] == "tool_use"]


@_patient
@given(REQUESTS)
def test_every_request_that_can_be_translated_is_one_of_anthropic_s_and_says_the_same(request: dict[str, Any]) -> None:
    asked = translated(**request)
    said = [message for message in request["messages"] if message["role"] not in {"system", "developer"}]
    assert texts_of(asked["messages"]) == texts_of(said)
    asked_calls = [call for message in said for call in message.get("tool_calls", [])]
    assert calls_of(asked["messages"]) == [json.loads(call["function"]["arguments"]) for call in asked_calls]
    roles = [turn["role"] for turn in asked["messages"]]
    assert all(role != following for role, following in pairwise(roles))
    assert 0 <= asked.get("temperature", 0) <= 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@_patient
@given(REQUESTS, st.dictionaries(st.sampled_from(["messages", "tools", "tool_choice", "stop", "n", "x"]), ANYTHING))
def test_whatever_a_body_holds_it_is_translated_or_refused(request: dict[str, Any], odd: dict[str, Any]) -> None:
    with suppress(RefusedError):
        translated(**request | odd)
