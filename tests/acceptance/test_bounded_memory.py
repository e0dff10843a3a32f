"""Memory is bounded by the window of open shards, not by the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli import Folder, chat, command
from tests.benchmarks.sampler import running, watch

if TYPE_CHECKING:
    from pathlib import Path

SIMULATED = """\
[providers.simulated]
kind = "simulated"
latency_s = 0
max_concurrency = 1000
"""
FEW, MANY = 2_000, 50_000
LIMIT_S = 1_500


def peak_bytes(path: Path, lines: int) -> int:
    """Run so many lines to their end, and give the highest memory of all the run's processes together."""
    path.mkdir()
    folder = Folder(path)
    folder.write_input([chat(number) for number in range(lines)])
    folder.providers.write_text(SIMULATED, encoding="utf-8")
    one_worker = folder.run_arguments("--workers", "1")  # by itself, a larger file has more of them
    with running(command(one_worker), path) as run:
        usage = watch(run, LIMIT_S)
    assert run.returncode == 0, (path / "stderr").read_text(encoding="utf-8")
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(lines)]
    return usage.peak_bytes


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_file_of_25_times_the_lines_takes_hardly_more_memory(tmp_path: Path) -> None:
    few, many = peak_bytes(tmp_path / "few", FEW), peak_bytes(tmp_path / "many", MANY)
    assert few > 50_000_000  # Python, celery and a Valkey at the least: the sampler has seen them all
    assert many <= 1.5 * few, f"{MANY:,} lines took {many:,} bytes at the peak, {FEW:,} lines {few:,}"
