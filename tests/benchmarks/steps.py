"""Where a line's CPU goes: by process, by the worker's threads, and by the steps of the worker.

Measured in a run of its own, since looking on costs. The threads' CPU is the kernel's count; the steps are shares of
py-spy's samples of one worker. Without py-spy, or the right to use it, there are no steps.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.benchmarks import components, runs
from tests.benchmarks.components import CpuByComponent
from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psutil

    from tests.benchmarks.runs import Cell, Input

RATE_HZ = 200
PYTHON_STARTS_S = 0.3
PY_SPY_ENDS_S = 30

_SHARDS: Final = "plan, feed, seal, finalize, sweep"
_REST: Final = "the rest: asyncio, the pool"
RULES: Final = tuple(
    (step, re.compile(pattern))
    for step, pattern in (
        ("start", r"importlib|Context\.__aenter__|create_celery"),
        ("publish", r"publish\w* \(workers/chords"),
        (_SHARDS, r"\(workers/(plan|replan|laid|feed|seal|produced|finalize|sweep|mend)\.py|\(obstore/"),
        ("send", r"\((workers/providers|httptools)/"),
        ("begin", r"[bB]egin\w* \((workers/desk|batchord/state/shards)"),
        ("record", r"_record\w* \(workers/execute|record\w* \((workers/desk|batchord/state/shards)|encode_outcome"),
        ("input lines", r"\((workers/inputs|batchord/shard_file)\.py"),
        ("begin and record: Redis client", r"\((workers/desk|batchord/state|batchord/grouped|redis/asyncio)"),
        ("acknowledge and chord", r"\b(finish|flush_parts|_turn_hub|succeed) \(workers/|\(workers/chords"),
        ("fetch and deliver", r"\((workers/transport|workers/strategy|kombu/|celery/worker/)|LoopThread\.submit"),
        ("execute's own code, permits, retry", r"\(workers/(execute|permits|retry)\.py"),
    )
)
"""What a stack belongs to: the first of these that one of its frames matches."""
_WAITING: Final = re.compile(r"\b(select|poll|wait|epoll_wait|_worker) \([^;]*$")
"""The innermost frame of a thread that waits, where py-spy does not see by itself that it does."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """CPU milliseconds a line in the batch phase by component, and those of the workers by step."""

    cell: Cell
    lines: int
    workers: int
    component_ms: dict[str, float]
    step_ms: dict[str, float]
    without_steps: str = ""


@dataclass(slots=True)
class _Profile:
    """Has py-spy look at the first worker from when it runs until it ends."""

    path: Path
    reason: str = ""
    _spy: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self, at: float, tree: Sequence[psutil.Process]) -> None:
        if self._spy is None and not self.reason:
            workers = [process for process in tree[1:] if components.role_or_none(process, tree[0]) == "worker"]
            if workers and at - workers[0].create_time() > PYTHON_STARTS_S:
                self._attach(workers[0].pid)

    def _attach(self, pid: int) -> None:
        options = ["--pid", str(pid), "--rate", str(RATE_HZ), "--format", "raw", "--output", str(self.path)]
        options.append("--nonblocking")  # a paused thread looks busy to it
        py_spy = Path(sys.executable).with_name("py-spy")
        if not py_spy.exists():
            self.reason = "py-spy is not installed"
            return
        with self.path.with_suffix(".log").open("wb") as log:
            self._spy = subprocess.Popen([py_spy, "record", *options], stdout=log, stderr=log, start_new_session=True)

    def stacks(self) -> list[tuple[str, int]]:
        """Give the sampled stacks, outermost frame first, and how often each was seen."""
        if self._spy is not None and self._spy.wait(PY_SPY_ENDS_S):
            self.reason = self.path.with_suffix(".log").read_text(encoding="utf-8").strip().rpartition("\n")[2]
        if not self.path.exists():
            self.reason = self.reason or "no worker was seen"
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [(stack, int(times)) for stack, _, times in (line.rpartition(" ") for line in lines)]


def measure(cell: Cell, source: Input, folder: Path, workers: int) -> Breakdown:
    """Run batchord once, in an empty folder, and look on.

    Raises:
        BenchmarkError: it failed, or not every line was answered.
    """
    cpu, profile = CpuByComponent(), _Profile(folder / "stacks.txt")

    def look(at: float, tree: Sequence[psutil.Process]) -> None:
        cpu(at, tree)
        profile(at, tree)

    run = runs.run("batchord", cell, source, folder, workers, lambda _: look)
    used_s = cpu.between(run.started_at, run.ended_at)
    component_ms = {name: 1000 * each / source.lines for name, each in used_s.items()}
    component_ms["upstream"] = 1000 * run.server_cpu_s / source.lines
    step_ms = by_step(profile.stacks(), component_ms)
    return Breakdown(cell, source.lines, workers, component_ms, step_ms, profile.reason)


def by_step(stacks: Iterable[tuple[str, int]], component_ms: Mapping[str, float]) -> dict[str, float]:
    """Divide the CPU of each of the worker's threads among the steps, by its samples; the largest first.

    The samples of the worker's start are left out, and so are those of waiting.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for stack, times in stacks:
        if stack and not _WAITING.search(stack) and (step := step_of(stack)) != "start":
            seen[_thread_of(stack)][step] += times
    divided: Counter[str] = Counter()
    for thread, steps in seen.items():
        thread_ms = component_ms.get(thread, 0.0)
        divided.update({step: thread_ms * times / steps.total() for step, times in steps.items()})
    return dict(divided.most_common())


def _thread_of(stack: str) -> str:
    if "(workers/__main__.py" in stack:
        return components.HUB
    return components.LOOP if "(workers/pool_loop.py" in stack else components.OTHER_THREADS


def step_of(stack: str) -> str:
    """Name the step that a stack, its frames apart by semicolons, was sampled in."""
    return next((step for step, pattern in RULES if pattern.search(stack)), _REST)


def table(breakdown: Breakdown) -> Table:
    """Show both."""
    rows = [(name, f"{each:.3f}") for name, each in breakdown.component_ms.items() if each >= 0.0005]
    rows += [(f"worker, step: {step}", f"{each:.3f}") for step, each in breakdown.step_ms.items()]
    if breakdown.without_steps:
        rows.append((f"worker, by step: not measured, {breakdown.without_steps}", ""))
    cell, workers = breakdown.cell, breakdown.workers
    note = f"{1000 * cell.latency_s:.0f} ms, {cell.in_flight:,} in flight, {breakdown.lines:,} lines, {workers} workers"
    return Table("steps", "CPU of a line by process and step", ("", "CPU ms a line"), rows, note)
