"""What an HTTP answer in OpenAI's shapes means: an answer to keep, or an error. Pure: no I/O and no clock."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchord.contract import NO_USAGE, Usage
from workers.providers import ratelimits
from workers.providers.seam import ProviderError, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.providers.http1 import Answer
    from workers.providers.ratelimits import Dialect

_EXCERPT_CHARS: Final = 500
_MOST_MODELS: Final = 5_000
_MODEL_CHARS: Final = 200
_MAX_TOKENS: Final = 2**53  # what a JSON number holds exactly; a count past it is nonsense


class _Told(msgspec.Struct):
    """The parts of an answer that matter here; results stay undecoded, and all the rest is skipped."""

    id: Any = None
    error: Any = None
    usage: Any = None
    choices: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    results: msgspec.Raw = msgspec.Raw()

    @property
    def has_result(self) -> bool:
        return any((self.choices, self.data, self.output, self.results))


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_MODELS: Final = msgspec.json.Decoder(_Models)
_DECODER: Final = msgspec.json.Decoder(_Told)
# UnicodeDecodeError is a ValueError; RecursionError is what too deep nesting ends in.
_NOT_JSON: Final = (msgspec.DecodeError, ValueError, RecursionError)


def read_answer(answer: Answer, now: float, rate_headers: Dialect = "none") -> Response:
    """Read a whole answer, and its headers on limits in their dialect; `now` is UTC epoch seconds.

    A failed Responses object has an `error` and its (empty) `output`: that is the provider's answer, and is kept.

    Raises:
        ProviderError: a success that is no JSON object (`invalid_response`), or that holds an error and no result
            (`provider_error`).
    """
    status_code, headers = answer.status_code, answer.headers
    succeeded = 200 <= status_code < 300  # noqa: PLR2004  (the class of success, RFC 9110, section 15)
    try:
        line, told = _parse(answer.body)
    except _NOT_JSON as problem:
        if succeeded:
            raise ProviderError("invalid_response", _not_an_object(answer)) from problem
        line, told = error_body(status_code, _not_an_object(answer)), _Told()
    if succeeded and told.error and not told.has_result:
        raise ProviderError("provider_error", _error_message(told.error), retry_after_s(headers, now))
    return Response(
        status_code,
        line,
        request_id(headers, told.id),
        usage_of(told.usage),
        None if succeeded else retry_after_s(headers, now),
        answer.latency_ms,
        answer.ttfb_ms,
        ratelimits.read(headers, rate_headers, now),
    )


def _parse(body: bytes) -> tuple[bytes, _Told]:
    body.decode()  # the JSON decoder does not look at the bytes of what it skips
    line = body.strip()
    told = _DECODER.decode(line)
    # A JSON string holds no raw line break, so any that is left is layout.
    if b"\n" in line or b"\r" in line:
        line = msgspec.json.format(line, indent=-1)
    return line, told


def model_names(body: bytes) -> list[str]:
    """Read the answer of `GET /v1/models`; what is no list of models names none."""
    try:
        listed = _MODELS.decode(body).data
    except _NOT_JSON:
        return []
    return list(dict.fromkeys(model.id for model in listed if 0 < len(model.id) <= _MODEL_CHARS))[:_MOST_MODELS]


def error_body(status_code: int, message: str) -> bytes:
    """Give OpenAI's error envelope, for an answer that has none of its own."""
    kind = "server_error" if status_code >= 500 else "invalid_request_error"  # noqa: PLR2004  (RFC 9110, section 15)
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": None}})


def _not_an_object(answer: Answer) -> str:
    text = " ".join(answer.body[: 4 * _EXCERPT_CHARS].decode(errors="replace").split())[:_EXCERPT_CHARS]
    said = f"text that is not a JSON object: {text}" if text else "an empty body."
    return f"The provider answered HTTP {answer.status_code} with {said}"


def _error_message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else msgspec.json.encode(error).decode()
    return f"The provider reported an error inside an HTTP success: {text[:_EXCERPT_CHARS]}"


def request_id(headers: Mapping[str, str], body_id: Any) -> str:
    """Give the id that the provider knows the request by, or "" where it said none."""
    named = headers.get("x-request-id") or headers.get("request-id") or body_id
    return named if isinstance(named, str) else ""


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Give how long the provider asks to be left alone: `retry-after-ms`, or `retry-after` (RFC 9110, 10.2.3)."""
    after_ms = _seconds(headers.get("retry-after-ms", ""))
    if after_ms is not None:
        return after_ms / 1000
    after = headers.get("retry-after", "")
    after_s = _seconds(after)
    return _seconds_until(after, now) if after_s is None else after_s


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(number, 0.0) if math.isfinite(number) else None


def _seconds_until(http_date: str, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # an HTTP date is in GMT, whatever it says
        date = date.replace(tzinfo=UTC)
    return max(date.timestamp() - now, 0.0)


def usage_of(usage: Any) -> Usage:
    """Read `usage` of chat completions (`prompt_tokens`, ...) or of responses and messages (`input_tokens`, ...).

    What is missing or nonsense counts as 0; a missing total is the sum of input and output. Messages have no total, and
    do not count among their `input_tokens` what their prompt cache took or gave.
    """
    if not isinstance(usage, dict):
        return NO_USAGE
    input_tokens = count(usage, "prompt_tokens") or count(usage, "input_tokens")
    output_tokens = count(usage, "completion_tokens") or count(usage, "output_tokens")
    read_tokens = 0
    if "total_tokens" not in usage:
        read_tokens = count(usage, "cache_read_input_tokens")
        input_tokens += read_tokens + count(usage, "cache_creation_input_tokens")
    input_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Usage(
        input_tokens=input_tokens,
        cached_tokens=count(input_details, "cached_tokens") or read_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=count(output_details, "reasoning_tokens") or count(output_details, "thinking_tokens"),
        total_tokens=count(usage, "total_tokens") or input_tokens + output_tokens,
    )


def count(counts: Any, name: str) -> int:
    """Give a count by its name; what is missing or nonsense counts as 0."""
    number = counts.get(name) if isinstance(counts, dict) else None
    return number if type(number) is int and 0 <= number <= _MAX_TOKENS else 0
