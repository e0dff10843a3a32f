"""What became of each request of a batch that has ended, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec


@dataclass(frozen=True, slots=True)
class ResultError:
    """Why a request has no success: `code` is the provider's, or batchord's where no HTTP answer came."""

    code: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request.

    `body` is the provider's answer; `status_code`, `body` and `provider` are None where no HTTP answer came. `error` is
    None for a success.
    """

    custom_id: str
    status_code: int | None
    request_id: str | None
    body: dict[str, Any] | None
    error: ResultError | None
    provider: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the request was answered with success."""
        return self.error is None


class _WireResponse(msgspec.Struct):
    status_code: int
    request_id: str
    body: dict[str, Any]
    provider: str = ""


class _WireError(msgspec.Struct):
    code: str
    message: str


class _WireLine(msgspec.Struct):
    custom_id: str
    response: _WireResponse | None = None
    error: _WireError | None = None


_decode_line = msgspec.json.Decoder(_WireLine).decode
_HTTP_OK: Final = range(200, 300)


def decode_result(raw: bytes) -> Result:
    """Read a line of an output or error file."""
    line = _decode_line(raw)
    if line.response is None:
        error = ResultError(line.error.code, line.error.message) if line.error else ResultError(None, "no answer")
        return Result(line.custom_id, None, None, None, error)
    response = line.response
    failure = None if response.status_code in _HTTP_OK else _refusal(response.body)
    answered = (response.status_code, response.request_id, response.body)
    return Result(line.custom_id, *answered, failure, response.provider or None)


def _refusal(body: dict[str, Any]) -> ResultError:
    envelope = body.get("error")
    if not isinstance(envelope, dict):
        return ResultError(None, str(envelope or body))
    code = envelope.get("code") or envelope.get("type")
    return ResultError(None if code is None else str(code), str(envelope.get("message", "")))
