"""What a client has of a file already, and which bytes it wants: ETag and Range as of RFC 9110. Pure."""

from __future__ import annotations

import re
from typing import Final

_SINGLE: Final = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)
_TAGS: Final = re.compile(r'(?:W/)?("[^"]*")')


class UnsatisfiableRangeError(ValueError):
    """The range begins past the end."""


def span(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Give the offsets of the first byte wanted and of the one after the last; None where the whole is to be sent.

    That is so for what is no range of bytes, and for several ranges, which a server need not serve.

    Raises:
        UnsatisfiableRangeError: the range begins past the end.
    """
    match = _SINGLE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        first, end = max(0, size_bytes - int(match[2])), size_bytes
    else:
        first, end = int(match[1]), min(int(match[2] or size_bytes) + 1, size_bytes)
        if match[2] and int(match[2]) < first:
            return None
    if first >= size_bytes:
        raise UnsatisfiableRangeError
    return first, end


def has(if_none_match: str, etag: str) -> bool:
    """Whether the client's `If-None-Match` says that it has this already."""
    return if_none_match.strip() == "*" or etag in _TAGS.findall(if_none_match)
