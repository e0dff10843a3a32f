"""What each kind of process in batchord's tree uses, a worker's threads apart: CPU seconds and memory over time."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from tests.benchmarks.sampler import cpu_of, memory_of, used_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HUB, LOOP, OTHER_THREADS = "worker: hub thread", "worker: loop thread", "worker: other threads"


class CpuByComponent:
    """Samples the CPU of each component. Reading the threads costs the measured command: not for a speed run."""

    def __init__(self) -> None:
        self._at: list[float] = []
        self._used: dict[tuple[int, str], float] = {}
        self._threads: dict[int, dict[int, float]] = defaultdict(dict)
        self._sums: list[dict[str, float]] = []

    def __call__(self, at: float, tree: Sequence[psutil.Process]) -> None:
        """Take a sample. A process that has ended keeps what it had used."""
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                self._used |= {(process.pid, name): cpu_s for name, cpu_s in self._parts(process, tree[0])}
        sums: dict[str, float] = defaultdict(float)
        for (_, name), cpu_s in self._used.items():
            sums[name] += cpu_s
        self._at.append(at)
        self._sums.append(sums)

    def between(self, started_at: float, ended_at: float) -> dict[str, float]:
        """Give the CPU seconds of each component between two epoch times."""
        used = {name: [sums.get(name, 0.0) for sums in self._sums] for name in sorted(self._sums[-1])}
        return {
            name: used_until(self._at, each, ended_at) - used_until(self._at, each, started_at)
            for name, each in used.items()
        }

    def _parts(self, process: psutil.Process, root: psutil.Process) -> Iterator[tuple[str, float]]:
        """Give what it has used; of a worker by thread: Celery's hub has the main one, asyncio's loop the busiest."""
        name = role(process, root)
        if name != "worker":
            yield name, cpu_of(process)
            return
        threads = self._threads[process.pid]  # those that have ended too
        threads |= {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
        hub_s = threads.get(process.pid, 0.0)
        loop_s = max((used_s for number, used_s in threads.items() if number != process.pid), default=0.0)
        yield HUB, hub_s
        yield LOOP, loop_s
        yield OTHER_THREADS, max(0.0, cpu_of(process) - hub_s - loop_s)


class MemoryByComponent:
    """Samples the memory of each component, each second."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, dict[str, int]]] = []

    def __call__(self, at: float, tree: Sequence[psutil.Process]) -> None:
        """Take a sample, if it is time."""
        if self.samples and at - self.samples[-1][0] < 1:
            return
        sums: dict[str, int] = defaultdict(int)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                sums[role(process, tree[0])] += memory_of(process)
        self.samples.append((at, dict(sums)))

    @property
    def at_peak(self) -> dict[str, int]:
        """The bytes of each component when their sum was highest."""
        return max((sums for _, sums in self.samples), key=lambda sums: sum(sums.values()))


def role(process: psutil.Process, root: psutil.Process) -> str:
    """Name what a process of batchord's tree is.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    if process == root:
        return "command"
    words = process.cmdline()
    if not words:
        raise psutil.ZombieProcess(process.pid)
    if "valkey-server" in words[0]:
        return "valkey"
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return {"workers": "worker", "app": "api"}.get(module, "other")


def role_or_none(process: psutil.Process, root: psutil.Process) -> str | None:
    """Name what a process is, if it has not ended."""
    with suppress(psutil.NoSuchProcess):
        return role(process, root)
    return None
