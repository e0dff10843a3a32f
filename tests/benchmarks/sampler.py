"""What a command's whole process tree uses: CPU seconds over time and the peak of its memory, by psutil."""

from __future__ import annotations

import subprocess
import time
from bisect import bisect_right
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    Observer = Callable[[float, Sequence[psutil.Process]], None]

INTERVAL_S = 0.05
MEMORY_EVERY = 4  # samples: reading PSS costs about a millisecond a process, which the measured command would pay
GRACE_S = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """The samples of one tree: cumulative CPU seconds at epoch times, and the highest sum of its memory."""

    at: Sequence[float]
    cpu_s: Sequence[float]
    peak_bytes: int

    def cpu_until(self, at: float) -> float:
        """Give the CPU seconds used until a time, between two samples in proportion."""
        return used_until(self.at, self.cpu_s, at)


def used_until(times: Sequence[float], used: Sequence[float], at: float) -> float:
    """Give how much was used until a time, by samples of what was used in all, between two of them in proportion."""
    after = bisect_right(times, at)
    if after == 0:
        return 0.0
    if after == len(times):
        return used[-1]
    share = (at - times[after - 1]) / (times[after] - times[after - 1])
    return used[after - 1] + share * (used[after] - used[after - 1])


@contextmanager
def running(
    command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a session of its own, its output in the folder's files; at the end its tree is gone.

    Its own session, because what is typed at the terminal is for the benchmark alone, which then ends its commands.
    """
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        started = subprocess.Popen(command, stdout=stdout, stderr=stderr, start_new_session=True, env=env)
    try:
        yield started
    finally:
        end_tree(started)


def end_tree(started: subprocess.Popen[bytes]) -> None:
    """End a command and its descendants, each by its process id: first asked by SIGTERM, then killed."""
    if started.poll() is not None:
        return
    descendants = psutil.Process(started.pid).children(recursive=True)
    started.terminate()
    with suppress(subprocess.TimeoutExpired):
        started.wait(GRACE_S)
    started.kill()
    started.wait()
    _, left = psutil.wait_procs(descendants, timeout=1)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=1)


def tree_of(process: psutil.Process) -> list[psutil.Process]:
    """Give a process and its descendants."""
    return [process, *process.children(recursive=True)]


def watch(started: subprocess.Popen[bytes], timeout_s: float, also: Observer | None = None) -> Usage:
    """Sample the command's tree until the command has ended; `also` is given each sample's time and processes.

    Raises:
        TimeoutError: it ran longer than `timeout_s`.
    """
    root = psutil.Process(started.pid)
    at, cpu_s, peak_bytes = [time.time()], [0.0], 0
    for tick in count():
        # A command that has ended stays readable until somebody waits for it: the last sample has all of its CPU.
        ended = root.status() == psutil.STATUS_ZOMBIE
        tree = tree_of(root)
        at.append(time.time())
        cpu_s.append(max(cpu_s[-1], sum(map(cpu_of, tree))))
        if also is not None:
            also(at[-1], tree)
        if tick % MEMORY_EVERY == 0:
            peak_bytes = max(peak_bytes, sum(map(memory_of, tree)))
        if ended:
            break
        if at[-1] - at[0] > timeout_s:
            raise TimeoutError(f"still running after {timeout_s} s: {started.args!r}")
        time.sleep(INTERVAL_S)
    started.wait()
    return Usage(at, cpu_s, peak_bytes)


def cpu_of(process: psutil.Process) -> float:
    """Give the CPU seconds of a process and of those of its children that have ended; 0 if it is gone itself."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # by now it counts with its parent, as a child that has ended
    return float(times.user + times.system + times.children_user + times.children_system)


def memory_of(process: psutil.Process) -> int:
    """Give a process's share of memory in bytes: PSS, which counts shared pages once, or RSS where there is no PSS."""
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(getattr(memory, "pss", memory.rss))
