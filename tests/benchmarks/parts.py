"""The parts of the benchmark: each measures one thing, shows its progress, and gives its results and their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from tests.benchmarks import costs, load, memory, peers, providers, recovery, report, runs, scale, steps
from tests.benchmarks.measured import Measured, empty_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from tests.benchmarks.scope import Scope

TOOLS: tuple[runs.Tool, runs.Tool] = ("plain", "batchord")


def measure_speed(scope: Scope, progress: Progress) -> Measured:
    """Run both tools in turn, condition by condition, round by round: a slow minute of the machine meets both.

    Then batchord once more, with somebody looking on.
    """
    turns = [(cell, tool) for _ in range(scope.rounds) for cell in scope.cells for tool in TOOLS]
    task = progress.add_task("", total=len(turns) + 1)
    measured = []
    with empty_folder() as folder:
        source = runs.write_input(folder / "input.jsonl", scope.lines)
        for cell, tool in turns:
            progress.update(task, description=f"{tool}: {_words(cell)}")
            with empty_folder() as empty:
                measured.append(runs.run(tool, cell, source, empty, scope.workers))
            progress.advance(task)
        progress.update(task, description=f"batchord by step: {_words(scope.steps_cell)}")
        with empty_folder() as empty:
            breakdown = steps.measure(scope.steps_cell, source, empty, scope.workers)
        progress.advance(task)
    comparisons = report.compare(measured)
    tables = [report.speed_table(comparisons), report.phase_table(comparisons), steps.table(breakdown)]
    return Measured({"comparisons": comparisons, "runs": measured, "breakdown": breakdown}, tables)


def measure_memory(scope: Scope, progress: Progress) -> Measured:
    """Measure the peak for each size of file."""
    peaks = []
    for lines in progress.track(scope.memory_lines, description="batchord: memory by lines"):
        with empty_folder() as empty:
            peaks.append(memory.peak(lines, empty, scope.workers))
    return Measured({"memory": peaks}, [memory.table(peaks, scope.workers)])


def measure_recovery(scope: Scope, progress: Progress) -> Measured:
    """Kill workers."""
    recoveries = []
    with empty_folder() as folder:
        source = runs.write_input(folder / "input.jsonl", scope.recovery.lines)
        for seed in progress.track(range(scope.rounds), description="batchord: workers are killed"):
            with empty_folder() as empty:
                recoveries.append(recovery.measure(scope.recovery, source, empty, seed))
    return Measured({"recovery": recoveries}, [recovery.table(recoveries)])


def measure_peers(scope: Scope, progress: Progress) -> Measured:
    """Run every tool in turn, condition by condition, round by round."""
    tools: tuple[runs.Tool, ...] = get_args(runs.Tool)
    turns = [(cell, tool) for _ in range(scope.rounds) for cell in scope.peer_cells for tool in tools]
    task = progress.add_task("", total=len(turns))
    attempts = []
    with empty_folder() as folder:
        source = runs.write_input(folder / "input.jsonl", scope.peer_lines)
        for cell, tool in turns:
            progress.update(task, description=f"{tool}: {_words(cell)}")
            with empty_folder() as empty:
                attempts.append(peers.attempt(tool, cell, source, empty, scope.workers))
            progress.advance(task)
    return Measured({"attempts": attempts}, [peers.table(attempts, scope.peer_lines)])


def measure_scale(scope: Scope, progress: Progress) -> Measured:
    """Ask a Redis what lines cost it."""
    shape = scope.scale
    turns = [(cell, lines, aof) for cell, lines in shape.cells for aof in (True, False)]
    loads = []
    with empty_folder() as folder:
        for cell, lines, aof in progress.track(turns, description="Redis: what a line costs"):
            source = runs.write_input(folder / "input.jsonl", lines)
            with empty_folder() as empty:
                loads.append(scale.measure_load(cell, source, empty, scope.workers, aof=aof))
        with empty_folder() as empty:
            held = scale.measure_held(runs.write_input(folder / "input.jsonl", shape.held_lines), empty, 256)
        with empty_folder() as empty:
            idle = scale.measure_idle(empty, shape.idle_s)
    tables = [
        costs.line_table(loads, idle),
        costs.command_table(loads[0]),
        costs.memory_table(loads[0], held),
        costs.sizing_table(loads[0], held),
    ]
    return Measured({"loads": loads, "held": held, "idle": idle}, tables)


def measure_load(scope: Scope, progress: Progress) -> Measured:
    """Measure what the server's clients wait, and what those of a bare route do."""
    with empty_folder() as empty:
        task = progress.add_task(f"batchord serve: {scope.load.clients} clients", total=1)
        loads = load.measure(scope.load, empty, scope.rounds)
        progress.advance(task)
    return Measured({"load": loads}, [report.load_table(loads)])


PARTS: Final[dict[str, Callable[[Scope, Progress], Measured]]] = {
    "speed": measure_speed,
    "memory": measure_memory,
    "recovery": measure_recovery,
    "peers": measure_peers,
    "scale": measure_scale,
    "load": measure_load,
    "rates": providers.measure_rates,
    "adaptive": providers.measure_adaptive,
    "fairness": providers.measure_fairness,
    "isolation": providers.measure_isolation,
    "prefix": providers.measure_prefix,
}


def _words(cell: runs.Cell) -> str:
    return f"{1000 * cell.latency_s:.0f} ms, {cell.in_flight:,} in flight"
