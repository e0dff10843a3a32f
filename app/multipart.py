"""A multipart form as it streams: its parts one after another, their bytes never all at once and never on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.exceptions import HTTPException

from batchord.errors import BatchordError, InvalidRequestError

SLACK_BYTES: Final = 16 * 1024 * 1024
"""How much of a body that is too large is still read, so that its client gets the answer and not a reset."""

_MOST_PARTS: Final = 100
_MOST_FIELD_BYTES: Final = 64 * 1024


def form_body(required: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Give what /openapi.json says of a form that is parsed here and not by the framework."""
    schema = {"type": "object", "required": list(required), "properties": dict(properties)}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


class _End:
    """The end of a part."""


@dataclass
class Part:
    """One part of a form; `content` gives its bytes, once, before the next part is asked for."""

    name: str
    filename: str | None
    content: AsyncIterator[bytes] = field(init=False)

    async def text(self) -> str:
        """Give the value of a field.

        Raises:
            InvalidRequestError: it is too long, or not UTF-8.
        """
        value = bytearray()
        async for chunk in self.content:
            value += chunk
            if len(value) > _MOST_FIELD_BYTES:
                raise InvalidRequestError(f"'{self.name}' is too long.", self.name)
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(f"Invalid '{self.name}': the string is not valid Unicode.", self.name) from None


Event = Part | bytes | _End


class Feeder:
    """A push parser: give it a form's bytes, cut anywhere, and it gives what they hold."""

    def __init__(self, boundary: str) -> None:
        callbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": lambda: self._events.append(_End()),
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # mypy sees no TypedDict in it
        self._events: list[Event] = []
        self._parts = 0
        self._is_whole = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Give what this chunk holds.

        Raises:
            InvalidRequestError: it is no form.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise malformed(str(error)) from None
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """See to it that the form is whole.

        Raises:
            InvalidRequestError: it was cut off.
        """
        if not self._is_whole:
            raise malformed("it has no closing boundary")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise malformed(f"it has more than {_MOST_PARTS} parts")
        self._disposition, self._field, self._value = b"", b"", b""

    def _on_header_field(self, chunk: bytes, start: int, end: int) -> None:
        self._field += chunk[start:end]

    def _on_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._value += chunk[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        self._events.append(_part(self._disposition))

    def _on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        self._events.append(chunk[start:end])

    def _on_end(self) -> None:
        self._is_whole = True


def _part(disposition: bytes) -> Part:
    """Read a Content-Disposition; its names are UTF-8 as browsers and SDKs send them, or RFC 2231's extended form."""
    header = Message()
    header["content-disposition"] = disposition.decode("utf-8", "replace")
    values = header.get_params(header="content-disposition") or []
    names = [_decoded(value) for key, value in values if key.lower() == "name"]
    if not names:
        raise malformed("a part has no name")
    filenames = sorted((value for key, value in values if key.lower() == "filename"), key=_is_plain)
    return Part(names[0], _decoded(filenames[0]) if filenames else None)


def _is_plain(value: object) -> bool:
    return isinstance(value, str)


def _decoded(value: str | tuple[str | None, str | None, str]) -> str:
    """Read a parameter, which the standard library gives as charset, language and bytes where it is extended."""
    if isinstance(value, str):
        return value.replace("%22", '"')  # as HTML has its forms escape it, and curl and httpx too
    charset, _, text = value
    encoding = "latin-1" if (charset or "").lower() == "iso-8859-1" else "utf-8"
    return text.encode("latin-1", "replace").decode(encoding, "replace")


def malformed(why: str) -> InvalidRequestError:
    """Give the error for a body that is no form."""
    return InvalidRequestError(f"We could not parse the multipart form of your request: {why}.")


@asynccontextmanager
async def open_form(request: Request, most_bytes: int) -> AsyncIterator[AsyncIterator[Part]]:
    """Give the parts of a request's form, whose files may hold so many bytes.

    What a refused form still holds is read, up to a bound, so that its client gets the answer.

    Raises:
        InvalidRequestError: the body is no form.
        HTTPException: it is larger than any form that would be allowed.
    """
    body = _bounded(request, most_bytes + SLACK_BYTES)
    try:
        yield _parts(_events(body, _boundary(request)))
    except BatchordError:
        async for _ in body:
            pass
        raise


def _boundary(request: Request) -> str:
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise InvalidRequestError("The request must be multipart/form-data, with a boundary.")
    if len(boundary) > 70 or not boundary.isascii():  # noqa: PLR2004 (RFC 2046, 5.1.1)
        raise malformed("its boundary is not 1 to 70 ASCII characters")
    return boundary


async def _bounded(request: Request, most_bytes: int) -> AsyncIterator[bytes]:
    told = request.headers.get("content-length", "")
    seen = int(told) if told.isdecimal() else 0
    if seen > most_bytes:
        raise _too_large(most_bytes)
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most_bytes:
            raise _too_large(most_bytes)
        yield chunk


def _too_large(most_bytes: int) -> HTTPException:
    return HTTPException(413, f"The request body is larger than {most_bytes} bytes, the most that this path takes.")


async def _events(body: AsyncIterator[bytes], boundary: str) -> AsyncIterator[Event]:
    feeder = Feeder(boundary)
    async for chunk in body:
        for event in feeder.feed(chunk):
            yield event
    feeder.close()


async def _parts(events: AsyncIterator[Event]) -> AsyncIterator[Part]:
    async for event in events:
        if isinstance(event, Part):
            event.content = _content(events)
            yield event


async def _content(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if not isinstance(event, bytes):
            break
        yield event
