"""Requests that come with a batch itself, as the lines of an input file; each is held to the rules of a line. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batchord.contract import BatchProblem
from batchord.errors import InvalidRequestError
from batchord.validation import parse_line
from batchord.validation.problems import duplicate_custom_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def encode_requests(requests: Sequence[Mapping[str, Any]], model: str | None, endpoint: str) -> list[bytes]:
    """Give the lines of the input file that says the same; `model` is for those bodies that name none.

    Raises:
        InvalidRequestError: a request breaks a rule of a line; the error's `param` is such as `requests[3].body.model`.
    """
    lines: list[bytes] = []
    seen: set[str] = set()
    for index, request in enumerate(requests):
        lines.append(_encode(f"requests[{index}]", request, model, endpoint))
        if (custom_id := request["custom_id"]) in seen:
            raise _refused(f"requests[{index}]", duplicate_custom_id(custom_id, 0).at(None))
        seen.add(custom_id)
    return lines


def _encode(param: str, request: Mapping[str, Any], model: str | None, endpoint: str) -> bytes:
    body = request["body"]
    if model is not None and body.get("model") is None:
        body = {**body, "model": model}
    line = {"method": "POST", "url": endpoint, **request, "body": body}
    try:
        raw = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:  # NaN, half a surrogate pair, a nest too deep
        raise InvalidRequestError(
            f"Invalid '{param}': it cannot be written as JSON.", param, "invalid_value"
        ) from error
    parsed = parse_line(1, raw, endpoint)
    if isinstance(parsed, BatchProblem):
        raise _refused(param, parsed)
    return raw + b"\n"


def _refused(param: str, problem: BatchProblem) -> InvalidRequestError:
    place = f"{param}.{problem.param}" if problem.param else param
    return InvalidRequestError(f"{place}: {problem.message}", place, problem.code)
