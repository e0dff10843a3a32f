"""What `batchord run` says at its end: how it went, what it cost in tokens, where the files are."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from batchord.cli.outputs import Paths
    from batchord.state.batches import BatchRecord

_ERRORS_READ: Final = 1_000
_HINTS: Final = {
    "connection_error": "Is the server running, and is base_url right?",
    "request_timeout": "The provider did not answer in time; raise timeout_s or lower max_concurrency.",
    "401": "Is the API key right? See api_key_env in the providers file.",
    "404": "Does the provider serve this endpoint and this model?",
    "429": "The provider's rate limit; lower max_concurrency.",
}


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Body(msgspec.Struct):
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int
    body: _Body


class _Line(msgspec.Struct):
    response: _Response | None = None
    error: _Error | None = None


def tell(record: BatchRecord, where: Paths, reason: str | None, *, as_json: bool) -> None:
    """Print the summary: for people on standard error, or as JSON on standard output."""
    if as_json:
        click.echo(msgspec.json.encode(facts(record, where)).decode())
    else:
        click.echo("\n".join(_sentences(record, where, reason)), err=True)


def facts(record: BatchRecord, where: Paths) -> dict[str, Any]:
    """Give the summary as values; times in seconds, rates in lines a second."""
    counts, usage, batch_s = record.batch.request_counts, record.batch.usage, _batch_s(record)
    return {
        "batch_id": record.batch.id,
        "status": record.batch.status,
        "total": counts.total,
        "completed": counts.completed,
        "failed": counts.failed,
        "retries": record.retries,
        "plan_s": round(max(0.0, record.started_ms / 1000 - record.batch.created_at), 3),
        "batch_s": round(batch_s, 3),
        "lines_per_s": round(counts.total / batch_s, 1) if batch_s else None,
        "usage": usage,
        "output": str(where.output),
        "errors": str(where.errors) if record.batch.error_file_id else None,
        "data_dir": str(where.data_dir),
    }


def most_common_error(errors: Path) -> str | None:
    """Give the reason that most of the first lines of an errors file have, with a hint where we have one."""
    with errors.open("rb") as file:
        reasons = Counter(_reason(line) for line in islice(file, _ERRORS_READ))
    if not reasons:
        return None
    ((code, message), times), *_ = reasons.most_common(1)
    hint = _HINTS.get(code, "")
    return f"{code}: {message} ({times:,} lines). {hint}".rstrip()


def _sentences(record: BatchRecord, where: Paths, reason: str | None) -> list[str]:
    counts, usage, batch_s = record.batch.request_counts, record.batch.usage, _batch_s(record)
    rate = f" ({counts.total / batch_s:,.0f} lines/s)" if batch_s else ""
    retries = f", {record.retries:,} retries" if record.retries else ""
    succeeded = f"{counts.completed:,} of {counts.total:,} lines succeeded in {batch_s:,.1f} s"
    lines = [
        f"{record.batch.status}: {succeeded}{rate}{retries}",
        f"tokens: {usage.input_tokens:,} in, {usage.output_tokens:,} out",
        f"output: {where.output}",
    ]
    if record.batch.error_file_id:
        lines.append(f"errors: {where.errors} ({counts.total - counts.completed:,} lines)")
    if reason:
        lines.append(f"most common error: {reason}")
    return [*lines, f"data:   {where.data_dir} (needed only to run this again; delete it when you are done)"]


def _batch_s(record: BatchRecord) -> float:
    return max(0, record.ended_ms - record.started_ms) / 1000


def _reason(raw: bytes) -> tuple[str, str]:
    line = msgspec.json.decode(raw, type=_Line)
    if line.response is None:
        return (line.error.code, line.error.message) if line.error else ("", "")
    error = line.response.body.error
    message = error.get("message", "") if isinstance(error, dict) else str(error)
    return str(line.response.status_code), str(message)
