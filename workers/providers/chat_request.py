"""A chat completions request, as far as other APIs can say it too: its types. Not all that OpenAI's servers take."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

_IMAGE_URL: Final = r"(?i)^(https?://|data:image/(jpeg|png|gif|webp);base64,)"


class Text(msgspec.Struct, tag_field="type", tag="text"):
    """Text of any role."""

    text: str


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    """What an assistant said in place of an answer."""

    refusal: str


class ImageUrl(msgspec.Struct):
    """An image by its address or in base64, of a type that vision models take."""

    url: Annotated[str, msgspec.Meta(pattern=_IMAGE_URL)]


class Image(msgspec.Struct, tag_field="type", tag="image_url"):
    """An image in a user's message or a tool's result."""

    image_url: ImageUrl


Part: TypeAlias = Text | Refusal | Image


class System(msgspec.Struct, tag_field="role", tag="system"):
    """What the operator says."""

    content: str | list[Text]


class Developer(msgspec.Struct, tag_field="role", tag="developer"):
    """What the operator says, by its newer name."""

    content: str | list[Text]


class User(msgspec.Struct, tag_field="role", tag="user"):
    """What the user says."""

    content: str | list[Text | Image]


class Called(msgspec.Struct):
    """A function and its arguments, which are the text of a JSON object."""

    name: str
    arguments: str


class Call(msgspec.Struct, tag_field="type", tag="function"):
    """A call that an assistant made."""

    id: str
    function: Called


class Assistant(msgspec.Struct, tag_field="role", tag="assistant"):
    """What the model said before; the fields that must be null are those of older and of spoken answers."""

    content: str | list[Text | Refusal] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: None = None
    audio: None = None


class Tool(msgspec.Struct, tag_field="role", tag="tool"):
    """What a call gave."""

    tool_call_id: str
    content: str | list[Text | Image]


Message: TypeAlias = System | Developer | User | Assistant | Tool


class Function(msgspec.Struct):
    """A function that may be called; its parameters are a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, msgspec.Raw] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct, tag_field="type", tag="function"):
    """A tool that is a function: the only type that others have too."""

    function: Function


class FunctionName(msgspec.Struct):
    """A function by its name."""

    name: str


class ChosenFunction(msgspec.Struct, tag_field="type", tag="function"):
    """The choice of one function, which must be called."""

    function: FunctionName


class Schema(msgspec.Struct):
    """The JSON schema of an answer."""

    schema: dict[str, msgspec.Raw]


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """An answer that fits a schema."""

    json_schema: Schema


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """An answer in plain text."""


class ChatRequest(msgspec.Struct):
    """The body of a request."""

    model: str
    messages: list[Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    modalities: list[Literal["text"]] | None = None
    n: Literal[1] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: SchemaFormat | TextFormat | None = None
    safety_identifier: str | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenFunction | None = None
    tools: list[FunctionTool] | None = None
    top_p: float | None = None
    user: str | None = None
