"""Other tools beside batchord: the same input, the same upstream, as many requests in flight, in turn, in one run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from tests.benchmarks import runs, stock
from tests.benchmarks.runs import BenchmarkError, Cell, Tool
from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.runs import Input, Run


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a tool did in a cell, or why it did not."""

    tool: Tool
    cell: Cell
    run: Run | None
    reason: str = ""


def attempt(tool: Tool, cell: Cell, source: Input, folder: Path, workers: int) -> Attempt:
    """Run a tool in an empty folder; a failure is a result."""
    try:
        return Attempt(tool, cell, runs.run(tool, cell, source, folder, workers))
    except (BenchmarkError, TimeoutError) as error:
        return Attempt(tool, cell, None, str(error).strip().rpartition("\n")[2])


def table(attempts: Sequence[Attempt], lines: int) -> Table:
    """Show each cell and tool: medians over the rounds."""
    cells, tools = dict.fromkeys(each.cell for each in attempts), get_args(Tool)
    rows = [
        _row(cell, tool, [each for each in attempts if (each.cell, each.tool) == (cell, tool)])
        for cell in cells
        for tool in tools
    ]
    headings = ("latency ms / in flight", "tool", "lines/s", "CPU ms a line", "peak MB", "not answered", "sent twice")
    rounds = len(attempts) // (len(cells) * len(tools))
    note = (
        f"{lines:,} lines; medians of {rounds} rounds; answers that failed or were lost, and lines sent twice: the most"
    )
    return Table("peers", "Beside other tools", headings, rows, note)


def _row(cell: Cell, tool: Tool, attempts: Sequence[Attempt]) -> tuple[str, ...]:
    condition = f"{1000 * cell.latency_s:.0f} / {cell.in_flight:,}"
    name = _name(tool, cell)
    done = [each.run for each in attempts if each.run is not None]
    if not done:
        return (condition, name, attempts[0].reason, "", "", "", "")
    return (
        condition,
        name,
        f"{statistics.median(run.answered / run.batch_s for run in done):,.0f}",
        f"{statistics.median(1000 * run.cpu_batch_s / run.lines for run in done):.2f}",
        f"{statistics.median(run.peak_bytes for run in done) / 1_000_000:.0f}",
        f"{max(run.lines - run.answered for run in done):,}",
        f"{max(run.repeated for run in done):,}",
    )


def _name(tool: Tool, cell: Cell) -> str:
    """Name the tool, with how many requests it was made to hold where those are fewer."""
    if tool != "celery-prefork":
        return tool
    return f"{tool}, {stock.concurrency_of('prefork', cell.in_flight)} processes"
