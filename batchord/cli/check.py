"""`batchord check`: the validation of an input file, and nothing else. It needs no Redis and sends nothing."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from batchord.batch import problem_line
from batchord.errors import InputRefusedError
from batchord.providers_file import load_routes
from batchord.settings import read_settings
from batchord.storage import CHUNK_BYTES
from batchord.validation import Scan

if TYPE_CHECKING:
    from batchord.routing import Routes
    from batchord.settings import Settings
    from batchord.validation import Accepted


@click.command()
@click.argument("input_path", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--providers", type=click.Path(path_type=Path), help="Check the models against this providers file too.")
def check(input_path: Path, providers: Path | None) -> None:
    """Check the input file IN and print every problem with its line number; send nothing.

    Exit code 0: the file may run. 2: it has problems, one a line on standard error.
    """
    given = {"providers": providers} if providers else {}
    settings = read_settings(**given)
    routes = load_routes(settings, os.environ) if settings.providers else None
    console = Console(stderr=True)
    with (
        _scan(settings, routes) as scan,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("checking", total=input_path.stat().st_size)
        accepted: Counter[str] = Counter()
        with input_path.open("rb") as file:
            while not scan.full and (chunk := file.read(CHUNK_BYTES)):
                accepted.update(map(_kind, scan.feed(chunk)))
                bar.advance(task, len(chunk))
        result = scan.finish()
        accepted.update(map(_kind, result.rest))
    if result.problems:
        raise InputRefusedError([problem_line(problem) for problem in result.problems])
    sys.stdout.write(f"{input_path}: {result.lines:,} lines for {result.endpoint}\n")
    sys.stdout.writelines(f"  {lines:,} {kind}\n" for kind, lines in accepted.most_common())


def _scan(settings: Settings, routes: Routes | None) -> Scan:
    """Give a scan that lists every problem, not only the first ones."""
    return Scan(
        route=routes.route if routes else None,
        patterns=routes.patterns if routes else (),
        max_lines=settings.max_lines,
        max_problems=settings.max_lines,
        max_line_bytes=settings.max_line_bytes,
    )


def _kind(accepted: Accepted) -> str:
    return f"{accepted.model} at provider {accepted.provider}" if accepted.provider else accepted.model
