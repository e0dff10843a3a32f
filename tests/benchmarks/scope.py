"""How much is measured: the full benchmark, and a quick one that only tells whether it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from tests.benchmarks import adaptive, fairness, isolation, prefix, rates
from tests.benchmarks.load import Shape as LoadShape
from tests.benchmarks.recovery import Shape as RecoveryShape
from tests.benchmarks.runs import Cell

PEER_LINES_MOST = 4_000
"""A minute or two for a stock Celery worker."""


@dataclass(frozen=True, slots=True)
class ScaleShape:
    """The cells of a scale run, each with its lines; the first one is what the examples are sized by."""

    cells: tuple[tuple[Cell, int], ...]
    held_lines: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class Scope:
    """The shapes of every part."""

    lines: int
    rounds: int
    workers: int
    cells: tuple[Cell, ...]
    steps_cell: Cell
    memory_lines: tuple[int, ...]
    recovery: RecoveryShape
    peer_cells: tuple[Cell, ...]
    peer_lines: int
    scale: ScaleShape
    load: LoadShape
    rates: rates.Shape
    adaptive: adaptive.Shape
    fairness: fairness.Shape
    isolation: isolation.Shape
    prefix: prefix.Shape


def full(lines: int, rounds: int, workers: int, memory_lines: tuple[int, ...]) -> Scope:
    """Give the benchmark of which the docs tell."""
    return Scope(
        lines,
        rounds,
        workers,
        cells=tuple(Cell(latency_s, in_flight) for latency_s in (0, 0.2) for in_flight in (64, 256, 1_000)),
        steps_cell=Cell(0, 256),
        memory_lines=memory_lines,
        recovery=RecoveryShape(20_000, Cell(0.2, 256), workers=max(2, workers), kills=3, visibility_s=60),
        peer_cells=(Cell(0, 64), Cell(0.2, 256), Cell(0.2, 1_000)),
        peer_lines=min(lines, PEER_LINES_MOST),
        scale=ScaleShape(((Cell(0, 256), 20_000), (Cell(0.5, 64), 2_000)), held_lines=5_000, idle_s=30),
        load=LoadShape(clients=50, requests_each=100, running_lines=50_000),
        rates=rates.Shape(2_000, 6_000, 612_000, workers=(1, 3), ways=get_args(rates.Way)),
        adaptive=adaptive.Shape(places=80, lines=20_000, settled_s=30, workers=(1, 2)),
        fairness=fairness.Shape(large_lines=50_000, small_lines=10, in_flight=64, window_lines=4_000),
        isolation=isolation.Shape(lines=3_000, in_flight=32, troubled_in_flight=256),
        prefix=prefix.Shape(lines=4_000, prefixes=40, prefixes_most=8, in_flight=32),
    )


def quick() -> Scope:
    """Give what takes a minute or two, and whose figures mean nothing."""
    return Scope(
        lines=200,
        rounds=1,
        workers=1,
        cells=(Cell(0, 64),),
        steps_cell=Cell(0, 64),
        memory_lines=(100, 1_000),
        recovery=RecoveryShape(800, Cell(0.1, 16), workers=2, kills=1, visibility_s=8),
        peer_cells=(Cell(0, 8),),
        peer_lines=100,
        scale=ScaleShape(((Cell(0, 64), 1_000), (Cell(0.1, 16), 200)), held_lines=1_000, idle_s=2),
        load=LoadShape(clients=5, requests_each=20, running_lines=2_000),
        rates=rates.Shape(100, 6_000, 612_000, workers=(1,), ways=("sliding window",)),
        adaptive=adaptive.Shape(places=8, lines=200, settled_s=2, workers=(1,)),
        fairness=fairness.Shape(large_lines=2_000, small_lines=2, in_flight=16, window_lines=200),
        isolation=isolation.Shape(lines=100, in_flight=16, troubled_in_flight=16),
        prefix=prefix.Shape(lines=200, prefixes=10, prefixes_most=2, in_flight=8),
    )
