"""What `batchord run` says at its end: how it went, what it cost in tokens, where the files are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from batchord.cli.money import dollars
from batchord.contract import Usage
from batchord.prices import NANOS_PER_DOLLAR

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batchord.cli.outputs import Counts, Paths
    from batchord.state.batches import BatchRecord

_ERRORS_READ: Final = 1_000
_HINTS: Final = {
    "provider_unavailable": "Is the server running, and is base_url right?",
    "connection_error": "The server ended connections without an answer; its log may say why.",
    "request_timeout": "The provider did not answer in time; the error says which limit to raise.",
    "401": "Is the API key right? See api_key_env in the providers file.",
    "404": "Does the provider serve this endpoint and this model?",
    "429": "The account's quota is used up, or one request is past the whole limit.",
    "max_cost_reached": "Run the same command again with a higher --max-cost to send them.",
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


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to say: the run's batches, the lines written in all, and where."""

    records: Sequence[BatchRecord]
    counts: Counts
    where: Paths

    def facts(self) -> dict[str, Any]:
        """Give the summary as values; times in seconds, rates in lines a second."""
        last, batch_s = self.records[-1], self._batch_s
        return {
            "batch_id": last.batch.id,
            "status": last.batch.status,
            "total": self.counts.succeeded + self.counts.failed,
            "completed": self.counts.succeeded,
            "failed": self.counts.failed,
            "retries": self._retries,
            "plan_s": round(max(0.0, last.started_ms / 1000 - last.batch.created_at), 3),
            "started_at": last.started_ms / 1000,
            "batch_s": round(batch_s, 3),
            "lines_per_s": round(self._sent / batch_s, 1) if batch_s else None,
            "usage": self._usage,
            "priced_cost": self._cost_nanos / NANOS_PER_DOLLAR,
            "output": str(self.where.output),
            "errors": str(self.where.errors) if self.counts.failed else None,
            "data_dir": str(self.where.data_dir),
        }

    def sentences(self) -> list[str]:
        """Give the summary for people."""
        counts, usage, batch_s = self.counts, self._usage, self._batch_s
        rate = f" ({self._sent / batch_s:,.0f} lines/s)" if batch_s else ""
        retries = f", {self._retries:,} {'retry' if self._retries == 1 else 'retries'}" if self._retries else ""
        succeeded = f"{counts.succeeded:,} of {counts.succeeded + counts.failed:,} lines succeeded in {batch_s:,.1f} s"
        lines = [
            f"{self.records[-1].batch.status}: {succeeded}{rate}{retries}",
            f"tokens: {usage['input_tokens']:,} in, {usage['output_tokens']:,} out",
            *self._cost(),
            f"output: {self.where.output}",
        ]
        if counts.failed:
            lines.append(f"errors: {self.where.errors} ({counts.failed:,} lines)")
            lines.append(f"most common error: {most_common_error(self.where.errors)}")
        return [*lines, f"data:   {self.where.data_dir} (needed only to run this again; delete it when you are done)"]

    def _cost(self) -> list[str]:
        """Say what the answers of known price have cost, if anything."""
        reached = ", all of --max-cost" if self.records[-1].is_over_budget else ""
        return [f"cost: {dollars(self._cost_nanos)}{reached}"] if self._cost_nanos else []

    @property
    def _cost_nanos(self) -> int:
        return sum(record.cost_nanos for record in self.records)

    @property
    def _batch_s(self) -> float:
        return sum(max(0, record.ended_ms - record.started_ms) for record in self.records) / 1000

    @property
    def _sent(self) -> int:
        return sum(record.batch.request_counts.total for record in self.records)

    @property
    def _retries(self) -> int:
        return sum(record.retries for record in self.records)

    @property
    def _usage(self) -> dict[str, int]:
        return {
            field.name: sum(getattr(record.batch.usage, field.name) for record in self.records)
            for field in fields(Usage)
        }


def tell(summary: Summary, *, as_json: bool) -> None:
    """Print the summary: for people on standard error, or as JSON on standard output."""
    if as_json:
        click.echo(msgspec.json.encode(summary.facts()).decode())
    else:
        click.echo("\n".join(summary.sentences()), err=True)


def most_common_error(errors: Path) -> str:
    """Give the reason that most of the first lines of an errors file have, with a hint where we have one."""
    with errors.open("rb") as file:
        reasons = Counter(_reason(line) for line in islice(file, _ERRORS_READ))
    ((code, message), times), *_ = reasons.most_common(1)
    hint = _HINTS.get(code, "")
    return f"{code}: {message} ({times:,} lines). {hint}".rstrip()


def _reason(raw: bytes) -> tuple[str, str]:
    line = msgspec.json.decode(raw, type=_Line)
    if line.response is None:
        return (line.error.code, line.error.message) if line.error else ("", "")
    error = line.response.body.error
    message = error.get("message", "") if isinstance(error, dict) else str(error)
    return str(line.response.status_code), str(message)
