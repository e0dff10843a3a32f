"""A request for `/v1/responses` as one for a chat completion, where nothing is lost by it. Pure; not for the answer.

What has no counterpart is refused by its name. Without effect, and so dropped: `store` (nobody could fetch the answer
from us), `max_tool_calls` (of built-in tools, which are refused), and of earlier output its ids, statuses, phases,
annotations and log probabilities. `metadata` is not sent, since the answer repeats it anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from workers.providers.refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

Table: TypeAlias = "dict[str, Any]"

_SAME: Final = (
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
)
_TRANSLATED: Final = (
    "input",
    "instructions",
    "max_output_tokens",
    "model",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
)
_WITHOUT_EFFECT: Final = ("max_tool_calls", "metadata", "store")
_KNOWN: Final = frozenset((*_SAME, *_TRANSLATED, *_WITHOUT_EFFECT))
_CHATS_OWN_WAY: Final = {"include": [], "top_logprobs": 0, "truncation": "disabled"}
"""Values that ask for what a chat completion does anyway."""

# Servers that have no Responses API mostly know no `developer` either; to those that do, it means the same.
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_FUNCTION: Final = ("name", "description", "parameters", "strict")
_SCHEMA: Final = ("name", "description", "schema", "strict")
_CHOICES: Final = ("auto", "none")


def from_responses(asked: Mapping[str, Any]) -> Table:
    """Give the body for `/v1/chat/completions` that asks for the same.

    Raises:
        RefusedError: it cannot be said so, or is no request at all.
    """
    told = _without_defaults(asked)
    _only(told, "", _KNOWN)
    chat = {"model": told.get("model"), "messages": [*_instructions(told), *_messages(told.get("input"))]}
    chat |= {field: told.get(field) for field in _SAME}
    chat["max_tokens"] = told.get("max_output_tokens")  # its new name is not known everywhere
    chat["reasoning_effort"] = _only(told.get("reasoning", {}), "reasoning", {"effort"}).get("effort")
    chat |= _text_options(_only(told.get("text", {}), "text", {"format", "verbosity"}))
    chat |= _tool_options(told)
    return {field: value for field, value in chat.items() if value is not None}


def _without_defaults(asked: Mapping[str, Any]) -> Table:
    return {
        field: value
        for field, value in asked.items()
        if value is not None and (field not in _CHATS_OWN_WAY or value != _CHATS_OWN_WAY[field])
    }


def _only(table: object, where: str, known: Collection[str]) -> Table:
    """Give a table, if it says nothing but what is known."""
    if not isinstance(table, dict):
        raise _invalid_type(where, "an object")
    for field, value in table.items():
        if field not in known and value is not None and value is not False:
            raise _no_counterpart(f"{where}.{field}".removeprefix("."))
    return table


def _string(table: Table, where: str, field: str) -> str:
    value, path = table.get(field), f"{where}.{field}"
    if value is None:
        raise _missing(path)
    if not isinstance(value, str):
        raise _invalid_type(path, "a string")
    return value


def _instructions(told: Table) -> list[Table]:
    said = told.get("instructions")
    if said is None:
        return []
    if not isinstance(said, str):
        raise _invalid_type("instructions", "a string")
    return [{"role": "system", "content": said}]


def _messages(given: object) -> list[Table]:
    if given is None:
        raise _missing("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[Table] = []
    for where, item in _numbered(given, "input"):
        if not isinstance(item, dict):
            raise _invalid_type(where, "an object")
        _way(_ITEMS, item.get("type", "message"), where)(item, where, messages)
    return messages


def _numbered(given: object, where: str) -> list[tuple[str, Any]]:
    if not isinstance(given, list):
        raise _invalid_type(where, "an array")
    return [(f"{where}[{index}]", item) for index, item in enumerate(given)]


def _way(ways: Mapping[str, Callable[..., Any]], kind: object, where: str) -> Callable[..., Any]:
    if not isinstance(kind, str) or kind not in ways:
        raise _no_counterpart(f"{where}.type", kind)
    return ways[kind]


def _add_message(item: Table, where: str, messages: list[Table]) -> None:
    _only(item, where, {"type", "role", "content", "id", "status", "phase"})
    role = _ROLES.get(_string(item, where, "role"))
    if role is None:
        raise _no_counterpart(f"{where}.role", item["role"])
    messages.append({"role": role, "content": _content(item.get("content"), f"{where}.content", _PARTS[role])})


def _add_call(item: Table, where: str, messages: list[Table]) -> None:
    """Add a call to the message that it came with; calls that came together stay together."""
    _only(item, where, {"type", "call_id", "name", "arguments", "id", "status"})
    function = {"name": _string(item, where, "name"), "arguments": _string(item, where, "arguments")}
    call = {"id": _string(item, where, "call_id"), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _add_call_output(item: Table, where: str, messages: list[Table]) -> None:
    _only(item, where, {"type", "call_id", "output", "id", "status"})
    content = _content(item.get("output"), f"{where}.output", _PARTS["tool"])
    messages.append({"role": "tool", "tool_call_id": _string(item, where, "call_id"), "content": content})


_ITEMS: Final = {
    "message": _add_message,
    "function_call": _add_call,
    "function_call_output": _add_call_output,
}


def _content(content: object, where: str, ways: Mapping[str, Callable[[Table, str], Table]]) -> str | list[Table]:
    """Give text as text, even if it came as the only part: more servers know it so."""
    if content is None:
        raise _missing(where)
    if isinstance(content, str):
        return content
    parts = [_part(part, path, ways) for path, part in _numbered(content, where)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts or ""


def _part(part: object, where: str, ways: Mapping[str, Callable[[Table, str], Table]]) -> Table:
    if not isinstance(part, dict):
        raise _invalid_type(where, "an object")
    said: Table = _way(ways, part.get("type"), where)(part, where)
    return said


def _text(part: Table, where: str) -> Table:
    _only(part, where, {"type", "text", "annotations", "logprobs"})
    return {"type": "text", "text": _string(part, where, "text")}


def _refusal(part: Table, where: str) -> Table:
    _only(part, where, {"type", "refusal"})
    return {"type": "refusal", "refusal": _string(part, where, "refusal")}


def _image(part: Table, where: str) -> Table:
    _only(part, where, {"type", "image_url", "detail"})
    image = {"url": _string(part, where, "image_url")}
    match part.get("detail"):
        case None | "auto":
            pass
        case "low" | "high" as detail:
            image["detail"] = detail
        case detail:
            raise _no_counterpart(f"{where}.detail", detail)
    return {"type": "image_url", "image_url": image}


def _file(part: Table, where: str) -> Table:
    _only(part, where, {"type", "file_data", "filename"})
    file = {"file_data": _string(part, where, "file_data")}
    if part.get("filename") is not None:
        file["filename"] = _string(part, where, "filename")
    return {"type": "file", "file": file}


_PARTS: Final[dict[str, dict[str, Callable[[Table, str], Table]]]] = {
    "system": {"input_text": _text},
    "user": {"input_text": _text, "input_image": _image, "input_file": _file},
    "assistant": {"input_text": _text, "output_text": _text, "refusal": _refusal},
    "tool": {"input_text": _text},
}


def _text_options(text: Table) -> Table:
    return {"response_format": _response_format(text.get("format")), "verbosity": text.get("verbosity")}


def _response_format(wanted: object) -> Table | None:
    where = "text.format"
    if wanted is None:
        return None
    said = _only(wanted, where, {"type", *_SCHEMA})
    match said.get("type"):
        case "text":
            return None
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            return {"type": "json_schema", "json_schema": _picked(said, _SCHEMA)}
        case kind:
            raise _no_counterpart(f"{where}.type", kind)


def _tool_options(told: Table) -> Table:
    """Give what is said of tools; where there are none, chat completions refuse even to be told of a choice."""
    tools = [_tool(tool, where) for where, tool in _numbered(told.get("tools", []), "tools")]
    choice = _tool_choice(told.get("tool_choice"))
    if not tools:
        return {"tool_choice": None if choice in _CHOICES else choice}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": told.get("parallel_tool_calls")}


def _tool(tool: object, where: str) -> Table:
    if isinstance(tool, dict) and tool.get("type") != "function":
        raise _no_counterpart(f"{where}.type", tool.get("type"))
    said = _only(tool, where, {"type", *_FUNCTION})
    _string(said, where, "name")
    return {"type": "function", "function": _picked(said, _FUNCTION)}


def _tool_choice(choice: object) -> object:
    if choice is None or choice in (*_CHOICES, "required"):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        _only(choice, "tool_choice", {"type", "name"})
        return {"type": "function", "function": {"name": _string(choice, "tool_choice", "name")}}
    raise _no_counterpart("tool_choice")


def _picked(table: Table, fields: tuple[str, ...]) -> Table:
    return {field: table[field] for field in fields if table.get(field) is not None}


def _no_counterpart(param: str, value: object = None) -> RefusedError:
    said = f"'{param}'" if value is None else f"'{param}' of {str(value)[:100]!r}"
    lacks = "has no counterpart in chat completions, which is all that this provider offers for /v1/responses."
    return RefusedError(param, f"{said} {lacks}")


def _missing(param: str) -> RefusedError:
    return RefusedError(param, f"Missing required parameter: '{param}'.", "missing_required_parameter")


def _invalid_type(param: str, expected: str) -> RefusedError:
    return RefusedError(param, f"Invalid type for '{param}': expected {expected}.", "invalid_type")
