"""The wire contract: ids, the batch and file objects, and the lines of output and error files. No I/O.

Source: OpenAI's Batch and Files API; what the live service sends where its documentation is silent.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from batchord.lifecycle import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDPOINTS: Final = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
    "/v1/messages",  # Anthropic's, and so an extension to OpenAI's list
)

DEFAULT_TENANT: Final = "default"
"""Whose everything is where no API key says otherwise."""

BATCH_FILE_LIFE_S: Final = 30 * 86_400
"""How long an input file is kept where its uploader does not say."""

EXPIRED_MESSAGE: Final = "This request could not be executed before the completion window expired."
CANCELLED_MESSAGE: Final = "This request was not executed because the batch was cancelled."
MAX_COST_MESSAGE: Final = "This request was not executed because the batch had reached its max_cost."

OutcomePart = Literal["output", "errors"]
"""Where a line's outcome goes: successes, and all others."""

Produced = Literal[OutcomePart, "attempts"]
"""The files that a batch produces: successes, all other lines, and what was tried for each line."""

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def new_batch_id() -> str:
    """Give a fresh batch id: `batch_` and 32 hexadecimal digits."""
    return f"batch_{secrets.token_hex(16)}"


def new_file_id() -> str:
    """Give a fresh file id: `file-` and 22 letters and digits."""
    return _file_id(secrets.token_bytes(17))


def new_upload_id() -> str:
    """Give a fresh upload id: `upload_` and 32 hexadecimal digits."""
    return f"upload_{secrets.token_hex(16)}"


def new_part_id() -> str:
    """Give a fresh id of an upload's part: `part_` and 32 hexadecimal digits."""
    return f"part_{secrets.token_hex(16)}"


def produced_file_id(batch_id: str, produced: Produced, round_: int = 0) -> str:
    """Give the id of a file that a round of a batch produces: always the same, so that finalizing twice is harmless."""
    rounds = (str(round_),) if round_ else ()
    return _file_id(_digest(batch_id, produced, *rounds, size=17))


def assembled_file_id(upload_id: str, part_ids: Iterable[str]) -> str:
    """Give the id of the file that these parts of an upload make: always the same, so completing twice is harmless."""
    return _file_id(_digest(upload_id, *part_ids, size=17))


def line_id(batch_id: str, line: int) -> str:
    """Give the id of a line's outcome: `batch_req_` and 32 hexadecimal digits, the same at each try."""
    return f"batch_req_{_digest(batch_id, str(line), size=16).hex()}"


def _digest(*parts: str, size: int) -> bytes:
    return blake2b("\0".join(parts).encode(), digest_size=size).digest()


def _file_id(entropy: bytes) -> str:
    number, letters = int.from_bytes(entropy, "big"), []
    for _ in range(22):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "file-" + "".join(letters)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, in the sense of OpenAI's `usage`; an unknown number is 0."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0


NO_USAGE: Final = Usage()


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class RequestCounts(_Wire):
    """Lines of a batch: `completed` were answered with success, `failed` were tried and failed; others are neither."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchProblem(_Wire):
    """Why an input was refused. `line` counts from 1; `summary` is the short form for a terminal, not on the wire."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    summary: str = ""


class BatchObject(_Wire):
    """A batch and whose it is; times are UTC epoch seconds.

    `round` counts the retries: 0 is the first pass over the lines. `output_expires_after_s` is how long produced files
    are kept, None for ever. `once` is the digest of the Idempotency-Key that made it. At a cost of `max_cost_nanos`
    nano-dollars nothing more is sent. `dedupe` says whether lines of the same body share an answer; if None, those of
    temperature 0 do.
    """

    id: str
    tenant: str = DEFAULT_TENANT
    round: int = 0
    output_expires_after_s: int | None = None
    once: str | None = None
    max_cost_nanos: int | None = None
    dedupe: bool | None = None
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    created_at: int
    expires_at: int
    model: str | None = None
    errors: tuple[BatchProblem, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: Usage = Usage()
    metadata: dict[str, str] | None = None


class FileObject(_Wire):
    """A file and whose it is; times are UTC epoch seconds, `expires_at` is None for one that never expires.

    `batch_id` is the batch that produces it, whose bytes so far can be read while `status` is `uploaded`.
    """

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    tenant: str = DEFAULT_TENANT
    expires_at: int | None = None
    status: Literal["uploaded", "processed"] = "processed"
    batch_id: str | None = None


class LineError(msgspec.Struct, frozen=True):
    """Why a line has no HTTP answer."""

    code: str
    message: str


class Answer(msgspec.Struct, frozen=True):
    """The HTTP answer to a line, and which provider gave it; `body` is one line of JSON, kept to the byte.

    `cost` is in dollars, None where the price is not known.
    """

    status_code: int
    request_id: str
    provider: str
    body: msgspec.Raw
    cost: float | None = None


def outcome_line(batch_id: str, line: int, custom_id: str, result: Answer | LineError) -> bytes:
    """Give the line of an output or error file: exactly one of `response` and `error` is not null."""
    response, error = (result, None) if isinstance(result, Answer) else (None, result)
    return msgspec.json.encode(
        {"id": line_id(batch_id, line), "custom_id": custom_id, "response": response, "error": error}
    )


def problems_to_json(problems: Iterable[BatchProblem]) -> str:
    """Give the problems as they are kept in the batch's hash."""
    return msgspec.json.encode([problem.model_dump() for problem in problems]).decode()


def problems_from_json(text: str | bytes) -> tuple[BatchProblem, ...]:
    """Read what `problems_to_json` wrote."""
    entries: list[dict[str, Any]] = msgspec.json.decode(text)
    return tuple(BatchProblem(**entry) for entry in entries)
