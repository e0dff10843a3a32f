"""A chat completion, said as the Responses object that was asked for. Pure; not for what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from workers.providers.answers import count, usage_of
from workers.providers.seam import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

_REPEATED: Final[dict[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
"""What the object repeats of its request, and what it says of that where the request said nothing."""

_NEVER: Final[dict[str, Any]] = {
    "background": False,
    "error": None,
    "previous_response_id": None,
    "store": False,
    "truncation": "disabled",
}
"""What a request that could be translated cannot have asked for otherwise."""

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast")


def to_responses(asked: Mapping[str, Any], completion: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Give what `/v1/responses` would have answered to `asked`; `now` is UTC epoch seconds.

    Raises:
        ProviderError: this is no chat completion.
    """
    choice, message = _answered(completion)
    reason = _INCOMPLETE.get(_string(choice.get("finish_reason")))
    status = "incomplete" if reason else "completed"
    key = _string(completion.get("id")).removeprefix("chatcmpl-")
    return {
        "id": f"resp_{key}",
        "object": "response",
        "created_at": _created_at(completion, now),
        "completed_at": None if reason else int(now),
        "status": status,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": _string(completion.get("model")) or asked.get("model"),
        "output": _output(message, key, status),
        "usage": _usage(completion.get("usage")),
        "service_tier": tier if (tier := completion.get("service_tier")) in _TIERS else None,
        **_NEVER,
        **{field: default if (said := asked.get(field)) is None else said for field, default in _REPEATED.items()},
    }


def _answered(completion: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    match completion.get("choices"):
        case [{"message": dict(message)} as choice, *_]:
            return choice, message
    raise ProviderError("invalid_response", "The provider's answer is no chat completion: it holds no message.")


def _created_at(completion: Mapping[str, Any], now: float) -> int:
    created = completion.get("created")
    return created if type(created) is int else int(now)


def _output(message: dict[str, Any], key: str, status: str) -> list[dict[str, Any]]:
    """Give the items in the order in which they are made: thoughts, words, calls; only the last can be incomplete."""
    made = message.get("tool_calls")
    calls = [call for call in made if isinstance(call, dict)] if isinstance(made, list) else []
    items = [*_reasoning(message, key), *_said(message, key, has_calls=bool(calls))]
    items += [_call(call, f"{key}_{number}") for number, call in enumerate(calls)]
    items[-1]["status"] = status
    return items


def _reasoning(message: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Give the thoughts, which have no place in OpenAI's message, and these names in those of others."""
    text = _string(message.get("reasoning_content")) or _string(message.get("reasoning"))
    if not text:
        return []
    content = [{"type": "reasoning_text", "text": text}]
    return [{"id": f"rs_{key}", "type": "reasoning", "summary": [], "content": content, "status": "completed"}]


def _said(message: dict[str, Any], key: str, *, has_calls: bool) -> list[dict[str, Any]]:
    text, refusal = _words(message.get("content")), _string(message.get("refusal"))
    content: list[dict[str, Any]] = []
    if text or not (refusal or has_calls):
        content.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    if not content:
        return []
    return [{"id": f"msg_{key}", "type": "message", "role": "assistant", "status": "completed", "content": content}]


def _words(content: object) -> str:
    """Give the text of a message; some servers answer in parts, such as thoughts and text."""
    if isinstance(content, list):
        return "".join(_string(part.get("text")) for part in content if isinstance(part, dict))
    return _string(content)


def _call(call: dict[str, Any], key: str) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments") or {}
    return {
        "id": f"fc_{key}",
        "type": "function_call",
        "call_id": _string(call.get("id")) or f"call_{key}",
        "name": _string(function.get("name")),
        "arguments": arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode(),
        "status": "completed",
    }


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    counts, written = usage_of(usage), count(usage.get("prompt_tokens_details"), "cache_write_tokens")
    return {
        "input_tokens": counts.input_tokens,
        "input_tokens_details": {"cached_tokens": counts.cached_tokens, "cache_write_tokens": written},
        "output_tokens": counts.output_tokens,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
        "total_tokens": counts.total_tokens,
    }


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
