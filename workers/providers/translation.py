"""A body read in order to be translated: what cannot be said in the other API is refused by its place. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from workers.providers.refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Container

T = TypeVar("T")

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNSAID: Final = (msgspec.Raw(b"null"), msgspec.Raw(b"false"))
_MISSING: Final = re.compile(r"required field `(\w+)`")
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")


def read_request(body: bytes, decoder: msgspec.json.Decoder[T], known: Container[str], api: str) -> T:
    """Give a request's body as the type that holds all that can be said in `api`.

    Raises:
        RefusedError: the body says more or something else, or has a field that is not known and is not null or false.
    """
    try:
        for name, value in _FIELDS.decode(body).items():
            if name not in known and value not in _UNSAID:
                raise RefusedError(name, f"'{name}' has no counterpart in {api}.")
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise _misread(str(error), api) from None


def _misread(text: str, api: str) -> RefusedError:
    place, missing = _PLACE.search(text), _MISSING.search(text)
    param = ".".join(found[1] for found in (place, missing) if found and found[1]) or None
    return RefusedError(param, f"'{param or 'body'}' cannot be translated to {api}: {_PLACE.sub('', text)}.")
