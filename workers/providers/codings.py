"""Content codings (RFC 9110, section 8.4): undone within a bound. Not for transfer codings: those are the parser's."""

from __future__ import annotations

import zlib
from typing import Final

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_ZLIB_METHOD: Final = 8  # in the low half of the first byte, RFC 1950


class GarbledError(ValueError):
    """The bytes are not what their coding says, or it is none of those known here."""


def decoded(body: bytes, coding: str, most_bytes: int) -> bytes:
    """Undo the coding of a whole body; of more than `most_bytes` it gives only the first `most_bytes + 1`.

    Raises:
        GarbledError: the body is not whole, has something behind its end, or its coding is unknown.
    """
    if coding in {"", "identity"} or not body:
        return body
    inflater = zlib.decompressobj(_window(body, coding))
    try:
        inflated = inflater.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise GarbledError(str(error)) from error
    if len(inflated) <= most_bytes and (not inflater.eof or inflater.unused_data):
        raise GarbledError(f"it does not end where its {coding} does")
    return inflated


def _window(body: bytes, coding: str) -> int:
    if coding not in {"gzip", "x-gzip", "deflate"}:
        raise GarbledError(f"its content coding is {coding[:50]!r}")
    # "deflate" should have zlib's header, and from some servers has none (RFC 9110, section 8.4.1.2).
    has_header = coding != "deflate" or body[0] & 0x0F == _ZLIB_METHOD
    return _GZIP_OR_ZLIB if has_header else -zlib.MAX_WBITS
