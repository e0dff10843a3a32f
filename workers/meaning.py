"""What a result says of its provider, whatever it says of the line. Pure."""

from __future__ import annotations

from enum import Enum

from workers.providers.seam import ProviderError, Response


class Meaning(Enum):
    """What a result says of its provider; a time limit that ran out is a failure that does not open the circuit."""

    ANSWERED = 1
    REFUSED = 2
    FAILED = 3
    TIMED_OUT = 4
    NOTHING = 5


def meaning_of(result: Response | ProviderError) -> Meaning:
    """Give what a result says of its provider. That an answer is broken, or a refusal of the line, is none of it."""
    if isinstance(result, ProviderError):
        by_code = {"connection_error": Meaning.FAILED, "request_timeout": Meaning.TIMED_OUT}
        return by_code.get(result.code, Meaning.ANSWERED)
    if result.is_unsent:
        return Meaning.NOTHING
    if result.is_throttled:
        return Meaning.REFUSED
    return Meaning.FAILED if result.is_server_error else Meaning.ANSWERED


def reason_of(result: Response | ProviderError) -> str:
    """Give a few words on what is wrong, such as `connection refused`."""
    if isinstance(result, Response):
        return f"HTTP {result.status_code}"
    return result.message.rpartition(": ")[2].rstrip(".")
