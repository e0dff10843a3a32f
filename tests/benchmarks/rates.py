"""How near to a server's limit a minute a run comes, and how often it passes it; lm-deluge beside it.

A minute is scaled down, so that a run is longer than it: 6,000 a minute are 600 in six seconds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.benchmarks.limited import provider, refused_share, serving, took_s, usages
from tests.benchmarks.runs import BenchmarkError, answered_ids, batchord_command, finish
from tests.benchmarks.table import Table
from tests.limited_upstream import Terms
from tests.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.limited import Sent, Server
    from tests.benchmarks.runs import Input
    from tests.limits import Unit

Way = Literal["fixed windows", "sliding window", "bucket"]
RateTool = Literal["batchord", "lm-deluge"]

WINDOW_S: Final = 6.0
BURST_S: Final = 0.25
"""What the bucket holds, in seconds of the limit."""
IN_FLIGHT: Final = 64
LATENCY_S: Final = (0.1, 0.3)
OUTPUT_TOKENS: Final = (20, 44)
TIMES_THE_LEAST: Final = 10
"""A tool that takes so many times longer than it could is stopped."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The limits a minute, and what is run against each of them."""

    lines: int
    requests_per_minute: int
    tokens_per_minute: int
    workers: tuple[int, ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition: what is counted, how, and with how many worker processes."""

    unit: Unit
    way: Way
    tool: RateTool
    workers: int


@dataclass(frozen=True, slots=True)
class Paced:
    """What a run against a limit took, beside the least that the limit permits; times from first to last request."""

    cell: Cell
    lines: int
    answered: int
    requests: int
    refused_share: float
    least_s: float
    took_s: float

    @property
    def ratio(self) -> float:
        """How many times longer than necessary it took."""
        return self.took_s / self.least_s


def cells(shape: Shape) -> list[Cell]:
    """Give what is run: batchord for requests and tokens, and lm-deluge for requests."""
    units: tuple[Unit, ...] = ("requests", "tokens")
    ours = [Cell(unit, way, "batchord", count) for unit in units for way in shape.ways for count in shape.workers]
    return [*ours, *(Cell("requests", way, "lm-deluge", 1) for way in shape.ways)]


def measure(shape: Shape, cell: Cell, source: Input, folder: Path) -> Paced:
    """Run a tool once, in an empty folder, with the server's limit stated to it.

    Raises:
        BenchmarkError: it failed, or batchord has not answered every line.
    """
    per_minute = shape.requests_per_minute if cell.unit == "requests" else shape.tokens_per_minute
    terms = Terms(limits=_limits(cell, per_minute), retry_after="ms", latency_s=LATENCY_S, output_tokens=OUTPUT_TOKENS)
    with serving(terms, folder / "upstream") as server:
        finish(_command(cell, per_minute, server, source, folder), folder, _patience_s(shape))
        sent = server.sent()
    answered = len(set(answered_ids(folder / "output.jsonl")))
    if cell.tool == "batchord" and answered < source.lines:
        raise BenchmarkError(f"{answered} of {source.lines} lines were answered.")
    units = (
        source.lines
        if cell.unit == "requests"
        else sum(each["total_tokens"] for each in usages(folder / "output.jsonl"))
    )
    return _paced(cell, source.lines, answered, sent, least_s=60 * units / per_minute)


def _paced(cell: Cell, lines: int, answered: int, sent: list[Sent], least_s: float) -> Paced:
    return Paced(cell, lines, answered, len(sent), refused_share(sent), least_s, took_s(sent))


def _patience_s(shape: Shape) -> float:
    return 60 + TIMES_THE_LEAST * 60 * shape.lines / shape.requests_per_minute


def _limits(cell: Cell, per_minute: int) -> tuple[Limit, ...]:
    per_s = per_minute / 60
    match cell.way:
        case "fixed windows":
            second = Limit(kind="fixed", limit=per_s, window_s=1, unit=cell.unit)
            return (Limit(kind="fixed", limit=per_s * WINDOW_S, window_s=WINDOW_S, unit=cell.unit), second)
        case "sliding window":
            return (Limit(kind="sliding", limit=per_s * WINDOW_S, window_s=WINDOW_S, unit=cell.unit),)
        case "bucket":
            burst = per_s * BURST_S
            return (Limit(kind="bucket", limit=per_s * WINDOW_S, window_s=WINDOW_S, unit=cell.unit, burst=burst),)


def _command(cell: Cell, per_minute: int, server: Server, source: Input, folder: Path) -> list[str]:
    if cell.tool == "batchord":
        stated: dict[str, Any] = {f"{cell.unit}_per_minute": per_minute, "max_concurrency": IN_FLIGHT}
        (folder / "providers.toml").write_text(provider("upstream", server.base_url, models=["*"], **stated))
        return batchord_command(source.path, folder, cell.workers)
    files = [str(source.path), str(folder / "output.jsonl")]
    options = {"--base-url": server.base_url, "--in-flight": IN_FLIGHT, "--requests-per-minute": per_minute}
    flat = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "tests.benchmarks.deluge", *files, *flat]


def table(measured: Sequence[Paced]) -> Table:
    """Show each condition: medians need no more than one run each, since the limit decides."""
    headings = ("limit a minute", "tool", "workers", "least s", "took s", "ratio", "refused", "not answered")
    rows = [
        (
            f"{each.cell.unit}, {each.cell.way}",
            each.cell.tool,
            f"{each.cell.workers}",
            f"{each.least_s:.1f}",
            f"{each.took_s:.1f}",
            f"{each.ratio:.2f}",
            f"{each.refused_share:.1%}",
            f"{each.lines - each.answered:,}",
        )
        for each in measured
    ]
    note = (
        f"{measured[0].lines:,} lines, {LATENCY_S[0]}-{LATENCY_S[1]} s an answer; least: lines or tokens by the limit; "
        f"took: from the first request to the last; a minute is scaled to {WINDOW_S:g} s, so that its borders are met; "
        f"fixed windows: of it and of a second; the bucket holds {BURST_S:g} s of the limit"
    )
    return Table("rates", "Limits a minute", headings, rows, note)
