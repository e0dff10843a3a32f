"""How many worker processes a command runs: what `--workers` and `--autoscale` ask for, and what it takes without."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click

from batchord.cli.autoscale import Bounds
from batchord.cores import cores

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST: Final = 256
_BYTES_A_PROCESS: Final = 4_000_000
"""Some 5,000 lines: with less to do, a process more would take longer to start than it could save."""


class _Autoscale(click.ParamType[Bounds]):
    """`MAX,MIN` as Celery's option of this name has it; `MAX` alone means at least one."""

    name = "MAX,MIN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Bounds:
        if isinstance(value, Bounds):
            return value
        most, _, least = str(value).partition(",")
        if not (most.isdecimal() and (least or "1").isdecimal() and 1 <= int(least or 1) <= int(most) <= _MOST):
            self.fail(f"{value!r} is not MAX,MIN, such as 8,1, of 1 to {_MOST} processes", param, ctx)
        return Bounds(int(most), int(least or 1))


WORKERS: Final = click.IntRange(1, _MOST)

workers_option: Final[Callable[[Any], Any]] = click.option(
    "--workers", type=WORKERS, help="Worker processes.  [default: one, and by load up to one a core]"
)
autoscale_option: Final[Callable[[Any], Any]] = click.option(
    "--autoscale", type=_Autoscale(), help="More processes while they are busy and lines wait, fewer when idle."
)


def chosen(workers: int | None, autoscale: Bounds | None) -> Bounds:
    """Give the bounds that the two options ask for; without either, one process, and by load up to one a core.

    Raises:
        UsageError: both are given.
    """
    if workers is not None and autoscale is not None:
        raise click.UsageError("Say either --workers N, or --autoscale MAX,MIN.")
    return autoscale or (Bounds(workers, workers) if workers else Bounds(cores()))


def by_input(size_bytes: int, workers: int | None) -> Bounds:
    """Give the fixed number that `--workers` asks for; without it, one by the input's size, at most one a core."""
    processes = workers or max(1, min(cores(), math.ceil(size_bytes / _BYTES_A_PROCESS)))
    return Bounds(processes, processes)
