"""Runs the benchmark, part by part: shows the tables, saves everything as JSON, and on request renews the docs."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import report
from tests.benchmarks.parts import PARTS
from tests.benchmarks.runs import BenchmarkError
from tests.benchmarks.scope import full, quick
from tests.benchmarks.table import write_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.measured import Measured

LOG_WIDTH: Final = 160
DOCS: Final = tuple(Path(__file__).parents[2] / "docs" / name for name in ("benchmarks.md", "scaling.md"))


def _names(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(filter(None, value.replace(" ", "").split(",")))
    if unknown := set(names) - set(PARTS):
        raise click.BadParameter(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return names


@click.command()
@click.option(
    "--quick", "is_quick", is_flag=True, help="Minutes instead of an hour: does it work? Its figures mean nothing."
)
@click.option("--only", callback=_names, default=",".join(PARTS), show_default=True, help="The parts, by commas.")
@click.option("--lines", type=click.IntRange(min=1), default=10_000, show_default=True, help="Lines of an input.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each condition.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count(), help="Processes.  [default: one a core]")
@click.option(
    "--memory-lines",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1_000, 100_000, 1_000_000),
    show_default=True,
    help="Lines of each input of the memory part; a million take ten minutes.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bench-output"), show_default=True, help="A folder."
)
@click.option("--docs", is_flag=True, help="Put the tables into docs/benchmarks.md and docs/scaling.md.")
def main(  # noqa: PLR0913, PLR0917 (the command's options)
    is_quick: bool,
    only: Sequence[str],
    lines: int,
    rounds: int,
    workers: int,
    memory_lines: tuple[int, ...],
    out: Path,
    docs: bool,
) -> None:
    """Measure batchord: beside other tools, its memory, its recovery, its Redis, its server, its care for providers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the commands are ended
    scope = quick() if is_quick else full(lines, rounds, workers, memory_lines)
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    machine = report.machine()  # before the first run: its load is somebody else's
    for name in only:
        try:
            with Progress(*_columns(), console=console) as progress:
                measured = PARTS[name](scope, progress)
        except (BenchmarkError, TimeoutError) as error:
            raise click.ClickException(f"{name}: {error}") from None
        console.print(*(table.rich() for table in measured.tables), sep="\n")
        save(out / f"{name}.json", {"machine": machine, "scope": scope, **measured.results})
        if docs:
            write_docs(measured, f"Measured {time.strftime('%Y-%m-%d')} on {report.machine_words(machine)}.")
    console.print(f"Saved in {out}")


def _columns() -> Sequence[Any]:
    return TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()


def save(path: Path, results: dict[str, Any]) -> None:
    """Write everything measured as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


def write_docs(measured: Measured, source: str) -> None:
    """Renew the tables in the docs that the part has measured."""
    for page in DOCS:
        write_blocks(page, measured.tables, source)


if __name__ == "__main__":
    main()
