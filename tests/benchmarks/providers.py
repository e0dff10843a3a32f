"""The parts of the benchmark that are about providers: limits, unknown capacity, fairness, isolation, caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks import adaptive, fairness, isolation, prefix, rates, runs
from tests.benchmarks.measured import Measured, empty_folder

if TYPE_CHECKING:
    from rich.progress import Progress

    from tests.benchmarks.scope import Scope


def measure_rates(scope: Scope, progress: Progress) -> Measured:
    """Run against each kind of limit."""
    measured = []
    with empty_folder() as folder:
        source = runs.write_input(folder / "input.jsonl", scope.rates.lines)
        for cell in progress.track(rates.cells(scope.rates), description="limits a minute"):
            with empty_folder() as empty:
                measured.append(rates.measure(scope.rates, cell, source, empty))
    return Measured({"rates": measured, "ratios": [each.ratio for each in measured]}, [rates.table(measured)])


def measure_adaptive(scope: Scope, progress: Progress) -> Measured:
    """Run against servers of unknown capacity, with one worker and with several."""
    shape, measured = scope.adaptive, []
    turns = [(beyond, workers) for beyond in shape.capacities for workers in shape.workers]
    with empty_folder() as folder:
        source = runs.write_input(folder / "input.jsonl", shape.lines)
        for beyond, workers in progress.track(turns, description="servers of unknown capacity"):
            with empty_folder() as empty:
                measured.append(adaptive.measure(shape, beyond, source, empty, workers))
    return Measured({"adaptive": measured}, [adaptive.table(measured, shape)])


def measure_fairness(scope: Scope, progress: Progress) -> Measured:
    """Have one tenant's small batches run beside another's large one."""
    task = progress.add_task("a small batch beside a large one", total=1)
    with empty_folder() as empty:
        waited = fairness.measure(scope.fairness, empty, scope.rounds)
    progress.advance(task)
    return Measured({"fairness": waited, "ratio": waited.ratio}, [fairness.table(waited, scope.fairness)])


def measure_isolation(scope: Scope, progress: Progress) -> Measured:
    """Have a provider's lines run beside those of one in trouble."""
    with empty_folder() as empty:
        alone = isolation.alone(scope.isolation, empty)
    measured = []
    for trouble in progress.track(isolation.TROUBLES, description="a provider beside one in trouble"):
        with empty_folder() as empty:
            measured.append(isolation.beside(scope.isolation, trouble, alone, empty))
    results = {"isolation": measured, "ratios": [each.ratio for each in measured]}
    return Measured(results, [isolation.table(measured, scope.isolation)])


def measure_prefix(scope: Scope, progress: Progress) -> Measured:
    """Run against a prompt cache, in the input's order and in that of the prefixes."""
    measured = []
    for is_on in progress.track((False, True), description="a prompt cache, and the order of the lines"):
        with empty_folder() as empty:
            measured.append(prefix.measure(scope.prefix, empty, prefix_order=is_on))
    return Measured({"prefix": measured}, [prefix.table(measured, scope.prefix)])
