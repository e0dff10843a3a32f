"""Every reason to refuse an input file: its code, its parameter and its texts. Not the rules that find it.

Codes and messages are those of OpenAI's Batch API where they are public; summaries are ours, for a terminal, and say
the field and the mend. Values out of the file are cut short, so that a hostile line cannot fill the batch's hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batchord.contract import ENDPOINTS, BatchProblem
from batchord.errors import BatchordError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CUSTOM_ID_CHARS: Final = 512
_SHOWN_CHARS: Final = 512

_STREAMING: Final = {
    "/v1/chat/completions": "Chat Completions",
    "/v1/responses": "Responses",
    "/v1/completions": "Completions",
    "/v1/images/generations": "Images",
    "/v1/images/edits": "Images",
    "/v1/messages": "Messages",
}
_MENDS: Final = {
    "custom_id": "give a string that is unique in the file",
    "method": 'write "POST"',
    "url": 'write the endpoint, for example "/v1/chat/completions"',
    "body": "give the request as an object",
    "body.model": "name the model as a string",
    "body.messages": "give the conversation as a list of messages",
    "body.max_tokens": "say how many tokens the answer may have",
}


class ProblemError(BatchordError):
    """A problem that does not know its line yet; raised by the rules of a line, and turned into a value there."""

    def __init__(self, code: str, param: str | None, message: str, summary: str) -> None:
        super().__init__(message)
        self.code, self.param, self.message, self.summary = code, param, message, summary

    def at(self, line: int | None) -> BatchProblem:
        """Give the problem of this line; None stands for the file as a whole."""
        return BatchProblem(line=line, code=self.code, param=self.param, message=self.message, summary=self.summary)


def can_stream(url: str) -> bool:
    """Say whether requests to this endpoint have a `stream` parameter."""
    return url in _STREAMING


def invalid_json(reason: str) -> ProblemError:
    """The line is not UTF-8, not JSON, or not an object."""
    return ProblemError(
        "invalid_json_line",
        None,
        "This line is not parseable as valid JSON.",
        f"not a JSON object ({reason}); write each request as one object on a line of its own",
    )


def line_too_long(max_line_bytes: int) -> ProblemError:
    """The line is past the limit on one line's size."""
    return ProblemError(
        "line_too_long",
        None,
        f"This line is longer than {max_line_bytes} bytes.",
        f"longer than {max_line_bytes:,} bytes; shorten it or raise BATCHORD_MAX_LINE_BYTES",
    )


def missing_parameter(param: str) -> ProblemError:
    """A key of the line is absent."""
    return ProblemError(
        "missing_required_parameter",
        param,
        f"Missing required parameter: '{param}'.",
        f"{param}: missing; {_MENDS[param]}",
    )


def missing_in_body(param: str) -> ProblemError:
    """A key of the body is absent, null or empty."""
    name = param.removeprefix("body.").replace("_", " ").capitalize()
    return ProblemError(
        "invalid_request", param, f"{name} parameter is required.", f"{param}: missing; {_MENDS[param]}"
    )


def wrong_type(param: str, expected: str, got: str) -> ProblemError:
    """A value is not of its type; both types come with their article."""
    return ProblemError(
        "invalid_request",
        param,
        f"Invalid type for '{param}': expected {expected}, but got {got} instead.",
        f"{param}: is {got}, not {expected}; {_MENDS[param]}",
    )


def empty_custom_id() -> ProblemError:
    """The custom_id is an empty string."""
    return ProblemError(
        "invalid_request",
        "custom_id",
        "Invalid 'custom_id': empty string. Expected a string with minimum length 1, but got an empty string instead.",
        f"custom_id: empty; {_MENDS['custom_id']}",
    )


def long_custom_id(chars: int) -> ProblemError:
    """The custom_id has too many characters."""
    return ProblemError(
        "invalid_request",
        "custom_id",
        "Invalid 'custom_id': string too long. "
        f"Expected a string with maximum length {MAX_CUSTOM_ID_CHARS}, but got a string with length {chars} instead.",
        f"custom_id: has {chars:,} characters; shorten it to {MAX_CUSTOM_ID_CHARS}",
    )


def duplicate_custom_id(custom_id: str, first_line: int) -> ProblemError:
    """An earlier line has this custom_id."""
    return ProblemError(
        "duplicate_custom_id",
        "custom_id",
        f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch.",
        f"custom_id: duplicates line {first_line}",
    )


def invalid_method(method: str) -> ProblemError:
    """The method is not POST."""
    return ProblemError(
        "invalid_method",
        "method",
        f"Invalid method: '{_shown(method)}'. Only 'POST' is supported.",
        f"method: is {_shown(method)!r}; {_MENDS['method']}",
    )


def invalid_url(url: str, endpoint: str | None) -> ProblemError:
    """The url is not the batch's endpoint, or none that we know."""
    mend = f"all lines of the batch must say {endpoint!r}" if endpoint else f"use one of {', '.join(ENDPOINTS)}"
    return ProblemError(
        "invalid_url",
        "url",
        "The URL provided for this request does not match the batch endpoint.",
        f"url: is {_shown(url)!r}; {mend}",
    )


def streaming_unsupported(url: str) -> ProblemError:
    """The body asks for a stream."""
    return ProblemError(
        "streaming_unsupported",
        "body.stream",
        f"{_STREAMING[url]}: Streaming is not supported in the Batch API.",
        "body.stream: a batch cannot stream; write false or leave it out",
    )


def model_not_found(model: str, patterns: Sequence[str]) -> ProblemError:
    """No provider serves the model; `patterns` are the configured ones."""
    return ProblemError(
        "model_not_found",
        "body.model",
        f"The provided model '{_shown(model)}' is not supported by the Batch API.",
        f"body.model: no provider serves {_shown(model)!r}; configured: {'; '.join(patterns) or 'none'}",
    )


def mismatched_model(model: str, first_model: str, provider: str) -> ProblemError:
    """The line's provider takes one model a batch, and an earlier line named another one."""
    return ProblemError(
        "mismatched_model",
        "body.model",
        f"The model '{_shown(model)}' for this request does not match the rest of the batch. "
        "Each batch must contain requests for a single model.",
        f"body.model: is {_shown(model)!r}, but earlier lines say {_shown(first_model)!r}; "
        f"provider {provider} takes one model a batch, so split the file",
    )


def unknown_price(model: str, provider: str) -> ProblemError:
    """The batch has a budget, and what the model costs is not known."""
    return ProblemError(
        "unknown_price",
        "body.model",
        f"The price of the model '{_shown(model)}' is not known, so that 'max_cost' cannot be kept.",
        f"body.model: no price is known for {_shown(model)!r}; add it to prices of provider {provider} in the "
        "providers file, or leave max_cost out",
    )


def empty_file() -> ProblemError:
    """The file holds no line that is not blank."""
    return ProblemError(
        "empty_file",
        None,
        "The input file is empty. Please ensure that the batch contains at least one request.",
        "the file is empty; write one request a line",
    )


def too_many_tasks(max_lines: int) -> ProblemError:
    """The file holds more lines than a batch may."""
    return ProblemError(
        "too_many_tasks",
        None,
        f"The input file contains more than {max_lines} requests, the most that one batch may hold.",
        f"more than {max_lines:,} lines; split the file or raise BATCHORD_MAX_LINES",
    )


def with_more(problem: BatchProblem, more: int) -> BatchProblem:
    """Give the last problem of a list that was cut short: both of its texts also say how many more there are."""
    note = f"({more:,} more {'problem is' if more == 1 else 'problems are'} not listed)"
    return problem.model_copy(
        update={"message": f"{problem.message} {note}", "summary": f"{problem.summary} {note}"},
    )


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
