"""An answer of the Messages API as a chat completion, and its error as OpenAI's. Pure; not for native lines."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from workers.providers.answers import count, usage_of


class _Block(msgspec.Struct):
    """A block of any type; of those that are neither text nor a call of a tool nothing is read."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[_Block]
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Any = None


class _Error(msgspec.Struct):
    type: str
    message: str


class _ErrorEnvelope(msgspec.Struct):
    type: Literal["error"]
    error: _Error


# What is not here ends as a model ends by itself: end_turn, stop_sequence, pause_turn, and reasons to come.
_FINISH_REASONS: Final = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_OVERLOADED: Final = 529  # Anthropic's own
_UNAVAILABLE: Final = 503  # what other servers say

_MESSAGE: Final = msgspec.json.Decoder(_Message)
_ERROR: Final = msgspec.json.Decoder(_ErrorEnvelope)


def from_messages(body: bytes, created: int) -> bytes:
    """Give the chat completion that says the same as a message; `created` is in UTC epoch seconds.

    Thinking is left out, but its tokens count.

    Raises:
        msgspec.ValidationError: the body is no message.
    """
    message = _MESSAGE.decode(body)
    return msgspec.json.encode(
        {
            "id": message.id,
            "object": "chat.completion",
            "created": created,
            "model": message.model,
            "choices": [
                {
                    "index": 0,
                    "message": _said(message),
                    "logprobs": None,
                    "finish_reason": _FINISH_REASONS.get(message.stop_reason or "", "stop"),
                }
            ],
            "usage": _usage(message.usage),
        }
    )


def _said(message: _Message) -> dict[str, Any]:
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [_call(block) for block in message.content if block.type == "tool_use"]
    refusal = message.stop_details.explanation if message.stop_details else None
    content = None if not text and (calls or refusal) else text
    said = {"role": "assistant", "content": content, "refusal": refusal}
    return {**said, "tool_calls": calls} if calls else said


def _call(block: _Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": bytes(block.input).decode()}
    return {"id": block.id, "type": "function", "function": function}


def _usage(said: Any) -> dict[str, Any]:
    usage, written = usage_of(said), count(said, "cache_creation_input_tokens")
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def from_error(status_code: int, body: bytes) -> tuple[int, bytes]:
    """Give the status and the body of the same error at OpenAI; what is no error of Anthropic's stays as it is."""
    try:
        error = _ERROR.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        return status_code, body
    said = {"message": error.message, "type": _error_type(status_code), "param": None, "code": error.type}
    return _UNAVAILABLE if status_code == _OVERLOADED else status_code, msgspec.json.encode({"error": said})


def _error_type(status_code: int) -> str:
    if status_code == _TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status_code >= _SERVER_ERROR else "invalid_request_error"
