"""The command line of each program that batchord is compared with: what it is given, and what it says in the end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound="Callable[..., Any]")


def arguments(main: C) -> C:
    """Have a command take an input file, an output file, the upstream's URL, and how many requests may be in flight."""
    for parameter in (
        click.option("--in-flight", type=int, required=True),
        click.option("--base-url", required=True),
        click.argument("target", type=click.Path(path_type=Path)),
        click.argument("source", type=click.Path(path_type=Path, exists=True)),
    ):
        main = parameter(main)
    return main


def say_time(started_at: float) -> None:
    """Print as JSON when the batch began, by the epoch, and how long it has taken until now."""
    click.echo(json.dumps({"started_at": started_at, "batch_s": time.time() - started_at}))
