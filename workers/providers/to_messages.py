"""A chat completions request as the Messages request that asks the same. Pure; not for lines that go out untouched.

`chat_request` has the types of what both can say; whatever else a body holds is refused by its place. Hints that a
model need not heed (`seed`, the penalties, ...) are dropped, as Anthropic's own compatible endpoint does.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from workers.providers import chat_request as chat
from workers.providers.refusals import RefusedError
from workers.providers.translation import read_request

_API: Final = "Anthropic's Messages API"

_DROPPED: Final = (
    "frequency_penalty",
    "logit_bias",
    "metadata",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "seed",
    "service_tier",
    "store",
    "stream_options",
    "verbosity",
)
_KNOWN: Final = frozenset((*chat.ChatRequest.__struct_fields__, *_DROPPED))
_TOOL_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_EFFORTS: Final = {"none": None, "minimal": "low"}

_ASKED: Final = msgspec.json.Decoder(chat.ChatRequest)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def to_messages(body: bytes, default_max_tokens: int) -> bytes:
    """Give the body to send to `/v1/messages` in place of one of `/v1/chat/completions`.

    Messages need a `max_tokens`: `default_max_tokens` is for those bodies that have none.

    Raises:
        RefusedError: the body says what Messages cannot say, or breaks chat completions' own rules.
    """
    asked = read_request(body, _ASKED, _KNOWN, _API)
    return msgspec.json.encode(
        _stated(
            model=asked.model,
            max_tokens=_max_tokens(asked, default_max_tokens),
            system=_system(asked.messages),
            messages=_conversation(asked.messages),
            tools=[_tool(tool.function) for tool in asked.tools] if asked.tools else None,
            tool_choice=_tool_choice(asked),
            stop_sequences=_stop_sequences(asked.stop),
            output_config=_output_config(asked),
            thinking={"type": "disabled"} if asked.reasoning_effort == "none" else None,
            temperature=None if asked.temperature is None else min(asked.temperature, 1.0),
            top_p=asked.top_p,
            metadata=_metadata(asked),
        )
    )


def _stated(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _max_tokens(asked: chat.ChatRequest, default: int) -> int:
    stated = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    return default if stated is None else stated


def _system(messages: list[chat.Message]) -> str | None:
    """Join what the operator says; Messages has one place for it, before all else."""
    said = [message.content for message in messages if isinstance(message, chat.System | chat.Developer)]
    texts = [content if isinstance(content, str) else "\n".join(part.text for part in content) for content in said]
    return "\n".join(filter(str.strip, texts)) or None


def _conversation(messages: list[chat.Message]) -> list[dict[str, Any]]:
    """Give the turns; neighbours of one role are one turn, so that a call's results and what follows them are."""
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        role, blocks = _turn(message, f"messages[{index}]")
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:  # the service refuses empty ones
            turns.append({"role": role, "content": blocks})
    return turns


def _turn(message: chat.Message, place: str) -> tuple[str, list[dict[str, Any]]]:
    match message:
        case chat.User():
            return "user", _blocks(message.content)
        case chat.Tool():
            content = _blocks(message.content) or None
            return "user", [_stated(type="tool_result", tool_use_id=message.tool_call_id, content=content)]
        case chat.Assistant():
            calls = message.tool_calls or []
            used = [_tool_use(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls)]
            return "assistant", [*_blocks(message.content), *_blocks(message.refusal), *used]
        case _:
            return "system", []


def _blocks(
    content: str | list[chat.Text | chat.Image] | list[chat.Text | chat.Refusal] | None,
) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return _text_blocks(content)
    return [block for part in content or [] for block in _part_blocks(part)]


def _part_blocks(part: chat.Part) -> list[dict[str, Any]]:
    match part:
        case chat.Image():
            return [{"type": "image", "source": _source(part.image_url.url)}]
        case chat.Refusal():
            return _text_blocks(part.refusal)
        case chat.Text():
            return _text_blocks(part.text)


def _text_blocks(text: str) -> list[dict[str, Any]]:
    """Give a block, or none for a text without words: the service refuses those."""
    return [{"type": "text", "text": text}] if text.strip() else []


def _source(url: str) -> dict[str, str]:
    head, _, content = url.partition(",")
    if not head.lower().startswith("data:"):
        return {"type": "url", "url": url}
    media_type = head.lower().removeprefix("data:").removesuffix(";base64")
    return {"type": "base64", "media_type": media_type, "data": content}


def _tool_use(call: chat.Call, place: str) -> dict[str, Any]:
    arguments = call.function.arguments.encode() or b"{}"
    try:
        _OBJECT.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        param = f"{place}.function.arguments"
        raise RefusedError(param, f"'{param}' is not the text of a JSON object.") from None
    return {"type": "tool_use", "id": call.id, "name": call.function.name, "input": msgspec.Raw(arguments)}


def _tool(function: chat.Function) -> dict[str, Any]:
    schema = {"type": "object", **(function.parameters or {})}
    return _stated(name=function.name, description=function.description, input_schema=schema, strict=function.strict)


def _tool_choice(asked: chat.ChatRequest) -> dict[str, Any] | None:
    """Give the choice among the tools; one that allows none of them is not said where there are none to begin with."""
    choice = asked.tool_choice or "auto"
    said: dict[str, Any]
    if isinstance(choice, chat.ChosenFunction):
        said = {"type": "tool", "name": choice.function.name}
    elif asked.tools or choice == "required":
        said = {"type": _TOOL_CHOICES[choice]}
    else:
        return None
    if asked.parallel_tool_calls is False and choice != "none":
        said["disable_parallel_tool_use"] = True
    return said


def _stop_sequences(stop: str | list[str] | None) -> list[str] | None:
    texts = [stop] if isinstance(stop, str) else stop or []
    return [text for text in texts if text.strip()] or None  # the service refuses those of white space alone


def _output_config(asked: chat.ChatRequest) -> dict[str, Any] | None:
    wanted = asked.response_format
    schema = wanted.json_schema.schema if isinstance(wanted, chat.SchemaFormat) else None
    effort = asked.reasoning_effort and _EFFORTS.get(asked.reasoning_effort, asked.reasoning_effort)
    output_format = None if schema is None else {"type": "json_schema", "schema": schema}
    return _stated(effort=effort, format=output_format) or None


def _metadata(asked: chat.ChatRequest) -> dict[str, str] | None:
    user_id = asked.safety_identifier or asked.user
    return {"user_id": user_id} if user_id else None
