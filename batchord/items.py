"""How a producer's requests become lines of an input file: whole request objects, or the simple item form. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchord.errors import BatchordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DEFAULT_ENDPOINT: Final = "/v1/chat/completions"

_LINE_FIELDS: Final = frozenset({"custom_id", "method", "url", "body"})
_CHUNK_BYTES: Final = 1024 * 1024


class ItemError(BatchordError):
    """A request handed to `submit` is neither a request object nor a simple item; the message names which and why."""


def encode_items(items: Iterable[Mapping[str, Any]], *, model: str | None, endpoint: str | None) -> Iterator[bytes]:
    """Give an input file's bytes for requests, in chunks of whole lines.

    A request is one of:

    - a line of an input file: `{"custom_id", "body"}`, with `method` and `url` if they are to be checked;
    - a simple item: `{"custom_id", "message"}` with the user's message (for embeddings and the like, the input), and
      further fields of the request's body beside them, such as `temperature`, `max_tokens` or `system`.

    Args:
        items: the requests; a missing `custom_id` becomes `request-<n>`, counted from 1.
        model: for requests that name none.
        endpoint: for requests that name none; `/v1/chat/completions` if None.

    Raises:
        ItemError: a request is of neither form.
    """
    chunk, chunk_bytes = [], 0
    for number, item in enumerate(items, start=1):
        chunk.append(_encode(number, item, model, endpoint or DEFAULT_ENDPOINT))
        chunk_bytes += len(chunk[-1])
        if chunk_bytes >= _CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, chunk_bytes = [], 0
    yield b"".join(chunk)


def _encode(number: int, item: Mapping[str, Any], model: str | None, endpoint: str) -> bytes:
    if not hasattr(item, "keys"):
        raise ItemError(
            f"Request {number} is a {type(item).__name__}, not a mapping with custom_id and message or body."
        )
    custom_id = item.get("custom_id", f"request-{number}")
    body = _body(number, item, str(item.get("url", endpoint)))
    if model is not None:
        body = {"model": model, **body}
    line = {
        "custom_id": custom_id,
        "method": item.get("method", "POST"),
        "url": item.get("url", endpoint),
        "body": body,
    }
    try:
        return msgspec.json.encode(line) + b"\n"
    except (TypeError, ValueError) as error:
        raise ItemError(f"Request {number} (custom_id {custom_id!r}) cannot be written as JSON: {error}.") from None


def _body(number: int, item: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    if isinstance(item.get("body"), dict) and not item.keys() - _LINE_FIELDS:
        return dict(item["body"])
    if "message" not in item or "body" in item:
        raise ItemError(f"Request {number} needs either a body (the request's object) or a message (the user's text).")
    fields = {name: value for name, value in item.items() if name not in {*_LINE_FIELDS, "message", "system"}}
    return {**_prompt(endpoint, item["message"], item.get("system")), **fields}


def _prompt(endpoint: str, message: object, system: object) -> dict[str, Any]:
    """Give the body's field that carries the user's message at this endpoint."""
    if endpoint == "/v1/chat/completions":
        opening = [] if system is None else [{"role": "system", "content": system}]
        return {"messages": [*opening, {"role": "user", "content": message}]}
    if endpoint == "/v1/messages":
        body = {"messages": [{"role": "user", "content": message}]}
        return body if system is None else {"system": system, **body}
    if endpoint == "/v1/responses":
        return {"input": message} if system is None else {"instructions": system, "input": message}
    if endpoint in {"/v1/embeddings", "/v1/moderations"}:
        return {"input": message}
    return {"prompt": message}
