from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from anthropic import types
from anthropic.types import Message, StopReason
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from batchord.contract import Usage
from workers.providers.answers import usage_of
from workers.providers.from_messages import from_error, from_messages

NOW = 1_763_740_800
TEXT = {"type": "text", "text": "Hello.", "citations": None}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1.5}, "caller": {"type": "direct"}}
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
OTHERS: list[dict[str, Any]] = [
    THINKING,
    {"type": "redacted_thinking", "data": "x"},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}, "caller": {"type": "direct"}},
    {"type": "container_upload", "file_id": "file_1"},
]
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def message(*blocks: dict[str, Any], **fields: Any) -> bytes:
    """Give a message as Anthropic's package has it."""
    usage = fields.pop("usage", {"input_tokens": 3, "output_tokens": 5})
    made = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"}
    model = Message.model_validate(made | {"content": list(blocks), "usage": usage} | fields, strict=True)
    return model.model_dump_json().encode()


def completion(body: bytes) -> ChatCompletion:
    """Translate an answer, and see that OpenAI's package knows all of it."""
    said = from_messages(body, NOW)
    read = ChatCompletion.model_validate_json(said, strict=True)
    assert read.model_dump(exclude_unset=True) == json.loads(said)
    for part in (
        read,
        read.choices[0],
        read.choices[0].message,
        read.usage,
        *(read.choices[0].message.tool_calls or []),
    ):
        assert part is not None
        assert not part.model_extra
    return read


def test_a_text_is_a_chat_completion() -> None:
    assert json.loads(from_messages(message(TEXT), NOW)) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": NOW,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 5,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


@pytest.mark.parametrize("stop_reason", [*get_args(StopReason), None])
def test_every_reason_to_stop_has_its_name(stop_reason: str | None) -> None:
    finish_reason = FINISH_REASONS[stop_reason or "end_turn"]
    assert completion(message(TEXT, stop_reason=stop_reason)).choices[0].finish_reason == finish_reason


def test_a_reason_to_come_is_an_end_like_others() -> None:
    body = message(TEXT).replace(b'"end_turn"', b'"bored"')
    assert completion(body).choices[0].finish_reason == "stop"


def test_texts_are_joined_and_other_blocks_left_out() -> None:
    said = completion(message(THINKING, TEXT, *OTHERS, {**TEXT, "text": " Bye."})).choices[0].message
    assert (said.content, said.tool_calls) == ("Hello. Bye.", None)


@pytest.mark.parametrize(("blocks", "content"), [([CALL], None), ([TEXT, CALL], "Hello."), ([CALL, TEXT], "Hello.")])
def test_uses_of_tools_are_calls(blocks: list[dict[str, Any]], content: str | None) -> None:
    said = json.loads(from_messages(message(*blocks, stop_reason="tool_use"), NOW))["choices"][0]["message"]
    assert said["content"] == content
    (call,) = said["tool_calls"]
    assert call == {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1.5}'}}
    completion(message(*blocks, stop_reason="tool_use"))


def test_the_digits_of_arguments_are_kept() -> None:
    body = message(CALL).replace(b'{"a":1.5}', b'{"a":1.50,"b":123456789012345678901234567890}')
    (call,) = json.loads(from_messages(body, NOW))["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == '{"a":1.50,"b":123456789012345678901234567890}'


def test_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    (call,) = json.loads(from_messages(message({**CALL, "input": {}}), NOW))["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == "{}"


def test_an_empty_answer_has_an_empty_text() -> None:
    assert completion(message()).choices[0].message.content == ""


@pytest.mark.parametrize(
    ("blocks", "explanation", "content"),
    [([], "It is forbidden.", None), ([TEXT], "It is forbidden.", "Hello."), ([TEXT], None, "Hello."), ([], None, "")],
)
def test_a_refusal_says_why_if_it_was_said(
    blocks: list[dict[str, Any]], explanation: str | None, content: str | None
) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": explanation}
    choice = completion(message(*blocks, stop_reason="refusal", stop_details=details)).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("content_filter", content)
    assert choice.message.refusal == explanation


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 5}, Usage(3, 0, 5, 0, 8)),
        (
            {
                "input_tokens": 3,
                "output_tokens": 5,
                "cache_read_input_tokens": None,
                "cache_creation_input_tokens": None,
            },
            Usage(3, 0, 5, 0, 8),
        ),
        (
            {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20},
            Usage(123, 100, 5, 0, 128),
        ),
        (
            {"input_tokens": 0, "output_tokens": 5, "cache_read_input_tokens": 100},
            Usage(100, 100, 5, 0, 105),
        ),
        (
            {"input_tokens": 3, "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 40}},
            Usage(3, 0, 50, 40, 53),
        ),
    ],
)
def test_what_the_prompt_cache_read_and_wrote_counts_as_input(said: dict[str, Any], usage: Usage) -> None:
    assert usage_of(types.Usage.model_validate(said).model_dump()) == usage
    told = completion(message(TEXT, usage=said)).usage
    assert told is not None
    assert usage_of(told.model_dump()) == usage
    assert told.prompt_tokens_details is not None
    assert told.prompt_tokens_details.cache_write_tokens == (said.get("cache_creation_input_tokens") or 0)


def test_of_a_chat_completion_s_usage_a_proxy_s_cache_fields_are_not_counted_again() -> None:
    said = {"prompt_tokens": 123, "completion_tokens": 5, "total_tokens": 128, "cache_read_input_tokens": 100}
    assert usage_of(said).input_tokens == 123


@pytest.mark.parametrize("body", [b"{}", b'{"id":"x","choices":[]}', b'{"type":"error"}', b'{"id":1}'])
def test_what_is_no_message_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        from_messages(body, NOW)


@pytest.mark.parametrize(
    ("status", "kind", "shown_status", "shown_type"),
    [
        (400, "invalid_request_error", 400, "invalid_request_error"),
        (401, "authentication_error", 401, "invalid_request_error"),
        (402, "billing_error", 402, "invalid_request_error"),
        (403, "permission_error", 403, "invalid_request_error"),
        (404, "not_found_error", 404, "invalid_request_error"),
        (409, "conflict_error", 409, "invalid_request_error"),
        (413, "request_too_large", 413, "invalid_request_error"),
        (429, "rate_limit_error", 429, "rate_limit_error"),
        (500, "api_error", 500, "server_error"),
        (504, "timeout_error", 504, "server_error"),
        (529, "overloaded_error", 503, "server_error"),
    ],
)
def test_an_error_is_openai_s_with_anthropic_s_type_as_its_code(
    status: int, kind: str, shown_status: int, shown_type: str
) -> None:
    said = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}
    shown, body = from_error(status, json.dumps(said).encode())
    error = {"message": "No.", "type": shown_type, "param": None, "code": kind}
    assert (shown, json.loads(body)) == (shown_status, {"error": error})


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"Bad Gateway","type":"server_error","param":null,"code":null}}',
        b'{"detail":"Not Found"}',
        b'{"type":"error","error":"odd"}',
    ],
)
def test_an_error_of_somebody_else_on_the_way_stays_as_it_is(body: bytes) -> None:
    assert from_error(502, body) == (502, body)


_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
COUNTS = st.none() | st.integers(0, 10**6)
BLOCKS = st.one_of(
    st.builds(lambda said: {**TEXT, "text": said}, WORDS),
    st.builds(
        lambda asked: {**CALL, "input": asked}, st.dictionaries(WORDS, WORDS | st.integers() | st.none(), max_size=3)
    ),
    st.sampled_from(OTHERS),
)
USAGES = st.fixed_dictionaries(
    {"input_tokens": st.integers(0, 10**6), "output_tokens": st.integers(0, 10**6)},
    optional={"cache_read_input_tokens": COUNTS, "cache_creation_input_tokens": COUNTS},
)


@_patient
@given(st.lists(BLOCKS, max_size=4), st.sampled_from(get_args(StopReason)), USAGES)
def test_every_message_is_a_chat_completion_that_says_the_same(
    blocks: list[dict[str, Any]], stop_reason: str, usage: dict[str, Any]
) -> None:
    said = completion(message(*blocks, stop_reason=stop_reason, usage=usage))
    assert (said.choices[0].message.content or "") == "".join(block.get("text", "") for block in blocks)
    asked = [
        json.loads(call["function"]["arguments"])
        for call in said.model_dump()["choices"][0]["message"]["tool_calls"] or []
    ]
    assert asked == [block["input"] for block in blocks if block["type"] == "tool_use"]
    assert said.usage is not None
    assert said.usage.prompt_tokens == sum(filter(None, usage.values())) - usage["output_tokens"]
