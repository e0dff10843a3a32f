"""Runs the benchmark: each condition several times, the two tools in turn, memory, the server's load; saves it all."""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import load, memory, report, runs
from tests.benchmarks.runs import BenchmarkError, Cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOOLS: tuple[runs.Tool, runs.Tool] = ("plain", "batchord")


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is measured."""

    lines: int
    rounds: int
    cells: tuple[Cell, ...]
    memory_lines: tuple[int, ...]
    workers: int
    load: load.Shape


FULL_CELLS = tuple(Cell(latency_s, in_flight) for latency_s in (0, 0.2) for in_flight in (64, 256, 1_000))
FULL_LOAD = load.Shape(clients=50, requests_each=100, running_lines=50_000)
QUICK = Scope(200, rounds=1, cells=(Cell(0, 64),), memory_lines=(100, 1_000), workers=1, load=load.Shape(5, 20, 2_000))


@click.command()
@click.option("--quick", is_flag=True, help="A minute instead of many: does it all still work? Its times mean nothing.")
@click.option("--lines", type=click.IntRange(min=1), default=10_000, show_default=True, help="Lines of each input.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each tool a condition."
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="batchord's worker processes."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench-output/bench.json"), show_default=True)
def main(quick: bool, lines: int, rounds: int, workers: int, out: Path) -> None:
    """Compare `batchord run` with a plain aiohttp loop, measure its memory, and load `batchord serve`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the commands are ended
    scope = QUICK if quick else Scope(lines, rounds, FULL_CELLS, (1_000, 100_000), workers, FULL_LOAD)
    console, machine = Console(), report.machine()  # before the first run: its load is somebody else's
    try:
        with Progress(*_columns(), console=console) as progress:
            measured, peaks = measure_speed(scope, progress), measure_memory(scope, progress)
            loads = measure_load(scope, progress)
    except (BenchmarkError, TimeoutError) as error:
        raise click.ClickException(str(error)) from None
    comparisons = report.compare(measured)
    tables = [
        report.speed_table(comparisons),
        report.phase_table(comparisons),
        report.memory_table(peaks),
        report.load_table(loads),
    ]
    console.print(*tables, sep="\n")
    save(
        out,
        {
            "machine": machine,
            "scope": scope,
            "comparisons": comparisons,
            "memory": peaks,
            "load": loads,
            "runs": measured,
        },
    )
    console.print(f"Saved as {out}")


def _columns() -> Sequence[Any]:
    return TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()


def measure_speed(scope: Scope, progress: Progress) -> list[runs.Run]:
    """Run both tools in turn, condition by condition, round by round: a slow minute of the machine meets both."""
    turns = [(cell, tool) for _ in range(scope.rounds) for cell in scope.cells for tool in TOOLS]
    task = progress.add_task("", total=len(turns))
    measured = []
    with _folder() as folder:
        source = runs.write_input(folder / "input.jsonl", scope.lines)
        for cell, tool in turns:
            progress.update(task, description=f"{tool}: {1000 * cell.latency_s:.0f} ms, {cell.in_flight:,} in flight")
            with _folder() as empty:
                measured.append(runs.run(tool, cell, source, empty, scope.workers))
            progress.advance(task)
    return measured


def measure_memory(scope: Scope, progress: Progress) -> list[memory.Peak]:
    """Measure the peak for each size of file."""
    peaks = []
    for lines in progress.track(scope.memory_lines, description="batchord: memory by lines"):
        with _folder() as empty:
            peaks.append(memory.peak(lines, empty, scope.workers))
    return peaks


def measure_load(scope: Scope, progress: Progress) -> list[load.Comparison]:
    """Measure what the server's clients wait, and what those of a bare route do."""
    with _folder() as empty:
        task = progress.add_task(f"batchord serve: {scope.load.clients} clients", total=1)
        loads = load.measure(scope.load, empty, scope.rounds)
        progress.advance(task)
    return loads


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="batchord-bench-") as name:
        yield Path(name)


def save(path: Path, results: dict[str, Any]) -> None:
    """Write everything measured as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


if __name__ == "__main__":
    main()
