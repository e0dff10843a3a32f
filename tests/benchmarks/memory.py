"""Whether memory is bounded by the window, not by the file: the peak of all processes for small and large ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.components import MemoryByComponent
from tests.benchmarks.runs import (
    RUN_TIMEOUT_S,
    SLOWEST_LINES_PER_S,
    batchord_command,
    check_output,
    finish,
    write_input,
)
from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MEGABYTE = 1_000_000
SAMPLES_MOST = 500
SIMULATED = """\
[providers.simulated]
kind = "simulated"
models = ["*"]
max_concurrency = 256
latency_s = 0
"""


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest memory of `batchord run` with all its processes, over a file of so many lines.

    Of each kind of process: the bytes at the peak, and over time (seconds since the start, bytes).
    """

    lines: int
    input_bytes: int
    peak_bytes: int
    wall_s: float
    at_peak: dict[str, int]
    samples: list[tuple[float, dict[str, int]]]


def peak(lines: int, folder: Path, workers: int = 1) -> Peak:
    """Run a file through a simulated provider without latency, in an empty folder.

    Raises:
        BenchmarkError: it failed, or not every line was answered.
    """
    source, memory = write_input(folder / "input.jsonl", lines), MemoryByComponent()
    (folder / "providers.toml").write_text(SIMULATED, encoding="utf-8")
    timeout_s = RUN_TIMEOUT_S + lines / SLOWEST_LINES_PER_S
    usage, _ = finish(batchord_command(source.path, folder, workers), folder, timeout_s, memory)
    check_output(folder / "output.jsonl", lines)
    samples = memory.samples[:: -(-len(memory.samples) // SAMPLES_MOST)]
    return Peak(
        lines,
        source.path.stat().st_size,
        usage.peak_bytes,
        wall_s=usage.at[-1] - usage.at[0],
        at_peak=memory.at_peak,
        samples=[(round(at - usage.at[0], 1), sums) for at, sums in samples],
    )


def table(peaks: Sequence[Peak], workers: int) -> Table:
    """Show the peaks, each also as a ratio to the first, and by process."""
    names = sorted({name for each in peaks for name in each.at_peak})
    headings = ("lines", "input MB", "peak MB", "ratio", *(f"{name} MB" for name in names), "wall s")
    rows = [
        (
            f"{each.lines:,}",
            f"{each.input_bytes / MEGABYTE:.1f}",
            f"{each.peak_bytes / MEGABYTE:.0f}",
            f"{each.peak_bytes / peaks[0].peak_bytes:.2f}",
            *(f"{each.at_peak.get(name, 0) / MEGABYTE:.0f}" for name in names),
            f"{each.wall_s:.1f}",
        )
        for each in peaks
    ]
    note = f"simulated provider, 0 ms, 256 in flight, {workers} workers; by process: when their sum was highest"
    return Table("memory", "Peak memory of batchord run", headings, rows, note)
