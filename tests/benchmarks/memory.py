"""Whether memory is bounded by the window, not by the file: the peak of all processes for a small and a large one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.runs import batchord_command, check_output, finish, write_input

if TYPE_CHECKING:
    from pathlib import Path

SIMULATED = """\
[providers.simulated]
kind = "simulated"
models = ["*"]
max_concurrency = 256
latency_s = 0
"""


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest memory of `batchord run` with all its processes, over a file of so many lines."""

    lines: int
    input_bytes: int
    peak_bytes: int
    wall_s: float


def peak(lines: int, folder: Path, workers: int = 1) -> Peak:
    """Run a file through a simulated provider without latency, in an empty folder.

    Raises:
        BenchmarkError: it failed, or not every line was answered.
    """
    source = write_input(folder / "input.jsonl", lines)
    (folder / "providers.toml").write_text(SIMULATED, encoding="utf-8")
    usage, _ = finish(batchord_command(source.path, folder, workers), folder)
    check_output(folder / "output.jsonl", lines)
    return Peak(lines, source.path.stat().st_size, usage.peak_bytes, usage.at[-1] - usage.at[0])
