"""The rules of one line: its bytes become an accepted request or the first thing wrong with it. Pure, no other lines.

The rules in their order, which is part of the contract since a line is reported once: UTF-8, JSON and object;
custom_id; method; url; body; body.model; body.messages; body.max_tokens (of native messages); body.stream. Unknown keys
are ignored; of a repeated key the last one counts. Other faults of a body are the provider's to find, when it runs.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.contract import ENDPOINTS
from batchord.validation import problems
from batchord.validation.problems import ProblemError

if TYPE_CHECKING:
    from batchord.contract import BatchProblem

_PIECE_BYTES: Final = 1024 * 1024
_TYPES: Final = {"{": "an object", "[": "an array", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A line that may be sent: `body` has the exact bytes of the file, `provider` is empty where nothing was routed.

    `is_named` says that the line itself named its provider.
    """

    line: int
    custom_id: str
    url: str
    model: str
    body: bytes
    provider: str = ""
    is_named: bool = False


class _Envelope(msgspec.Struct, gc=False):
    """An empty Raw stands for an absent key."""

    custom_id: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()
    body: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct, gc=False):
    model: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    max_tokens: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()


class _Asked(msgspec.Struct, gc=False):
    model: str = ""


_NEEDED: Final = {"/v1/chat/completions": ("messages",), "/v1/messages": ("messages", "max_tokens")}
_NULL: Final = (msgspec.Raw(), msgspec.Raw(b"null"))
_NO_MODEL: Final = (*_NULL, msgspec.Raw(b'""'))
_NO_STREAM: Final = (*_NULL, msgspec.Raw(b"false"))

_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_BODY: Final = msgspec.json.Decoder(_Body)
_ASKED: Final = msgspec.json.Decoder(_Asked)
_STRING: Final = msgspec.json.Decoder(str)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_line(line: int, raw: bytes, endpoint: str | None = None) -> Accepted | BatchProblem:
    """Give the request of a line, or the first rule that it breaks.

    `endpoint` is the batch's; None allows any endpoint of the contract.
    """
    try:
        envelope = _envelope(raw)
        custom_id = _custom_id(envelope.custom_id)
        _check_method(envelope.method)
        url = _url(envelope.url, endpoint)
        body = _object(envelope.body)
        return Accepted(line, custom_id, url, _model(url, body), body)
    except ProblemError as problem:
        return problem.at(line)


def with_model(body: bytes, model: str) -> bytes:
    """Give the body with its top-level `model` replaced; every other value keeps its bytes, numbers' digits included.

    Of a repeated key the last value stays, as in every other reading of the body here.

    Raises:
        msgspec.DecodeError: the body is not a JSON object.
    """
    values = _OBJECT.decode(body)
    values["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(values)


def model_of(body: bytes) -> str:
    """Give the model that a planned line's body names, or "" where the body is lost."""
    return _ASKED.decode(body).model if body else ""


def _envelope(raw: bytes) -> _Envelope:
    if not _is_utf8(raw):  # msgspec looks at the bytes only of those strings that it decodes
        raise problems.invalid_json("not UTF-8")
    try:
        return _ENVELOPE.decode(raw)
    except msgspec.DecodeError as error:
        raise problems.invalid_json(str(error).removeprefix("JSON is malformed: ")) from None
    except RecursionError:
        raise problems.invalid_json("nested too deeply") from None


def _is_utf8(raw: bytes) -> bool:
    """Decode by pieces, since the text of a long line may take four times its bytes."""
    if raw.isascii():
        return True
    view, start = memoryview(raw), 0
    try:
        while start < len(raw):
            end = start + _PIECE_BYTES
            start += utf_8_decode(view[start:end], "strict", end >= len(raw))[1]
    except UnicodeDecodeError:
        return False
    return True


def _custom_id(raw: msgspec.Raw) -> str:
    custom_id = _string(raw, "custom_id")
    if not custom_id:
        raise problems.empty_custom_id()
    if len(custom_id) > problems.MAX_CUSTOM_ID_CHARS:
        raise problems.long_custom_id(len(custom_id))
    return custom_id


def _check_method(raw: msgspec.Raw) -> None:
    method = _string(raw, "method")
    if method != "POST":
        raise problems.invalid_method(method)


def _url(raw: msgspec.Raw, endpoint: str | None) -> str:
    url = _string(raw, "url")
    if url != endpoint if endpoint else url not in ENDPOINTS:
        raise problems.invalid_url(url, endpoint)
    return url


def _string(raw: msgspec.Raw, param: str) -> str:
    if not raw:
        raise problems.missing_parameter(param)
    kind = _type(raw)
    if kind != "a string":
        raise problems.wrong_type(param, "a string", kind)
    return _STRING.decode(raw)


def _object(raw: msgspec.Raw) -> bytes:
    if not raw:
        raise problems.missing_parameter("body")
    kind = _type(raw)
    if kind != "an object":
        raise problems.wrong_type("body", "an object", kind)
    return bytes(raw)


def _model(url: str, body: bytes) -> str:
    values = _BODY.decode(body)
    if values.model in _NO_MODEL:
        raise problems.missing_in_body("body.model")
    model = _string(values.model, "body.model")
    for name in _NEEDED.get(url, ()):
        if getattr(values, name) in _NULL:
            raise problems.missing_in_body(f"body.{name}")
    # Some servers take 1 or "true" for true, so that only what surely is not a stream may pass.
    if values.stream not in _NO_STREAM and problems.can_stream(url):
        raise problems.streaming_unsupported(url)
    return model


def _type(raw: msgspec.Raw) -> str:
    return _TYPES.get(chr(memoryview(raw)[0]), "a number")
