from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from batchord.cli import commands
from batchord.cli.autoscale import BUSY_LOOKS, SPARE_LOOKS, Bounds, Look, wanted
from batchord.cli.size import by_input, chosen
from batchord.cores import cores, cpu_s

if TYPE_CHECKING:
    from pathlib import Path

FEW, MANY = BUSY_LOOKS, SPARE_LOOKS
ONE_TO_FOUR = Bounds(most=4, least=1)


def looks(*phases: tuple[int, int, float]) -> list[Look]:
    """So many looks each, at so many processes that keep so many cores busy."""
    return [Look(processes, busy) for count, processes, busy in phases for _ in range(count)]


@pytest.mark.parametrize(
    ("seen", "bounds", "expected"),
    [
        pytest.param(looks((FEW, 1, 0.95)), ONE_TO_FOUR, 2, id="busy"),
        pytest.param(looks((FEW, 3, 2.7)), ONE_TO_FOUR, 4, id="all of them busy"),
        pytest.param(looks((FEW, 3, 2.0)), ONE_TO_FOUR, 3, id="one of them idle"),
        pytest.param(looks((FEW - 1, 1, 0.95)), ONE_TO_FOUR, 1, id="not for long enough"),
        pytest.param(looks((FEW, 1, 0.95), (1, 1, 0.3)), ONE_TO_FOUR, 1, id="busy no more"),
        pytest.param(looks((1, 1, 0.95), (FEW - 1, 2, 1.9)), ONE_TO_FOUR, 2, id="one more has just come"),
        pytest.param(looks((FEW, 4, 4.0)), ONE_TO_FOUR, 4, id="no more than the most"),
        pytest.param(looks((MANY, 1, 0.05)), Bounds(4), 1, id="a slow provider keeps one waiting"),
        pytest.param(looks((MANY, 2, 0.3)), ONE_TO_FOUR, 1, id="one could do it all"),
        pytest.param(looks((MANY, 4, 1.2)), ONE_TO_FOUR, 3, id="three could do it all"),
        pytest.param(looks((MANY, 2, 0.7)), ONE_TO_FOUR, 2, id="one alone would be nearly busy"),
        pytest.param(looks((MANY - 1, 2, 0.0)), ONE_TO_FOUR, 2, id="not idle for long enough"),
        pytest.param(looks((1, 2, 1.0), (MANY - 1, 2, 0.0)), ONE_TO_FOUR, 2, id="idle with a break"),
        pytest.param(looks((MANY, 2, 0.0)), Bounds(most=4, least=2), 2, id="no fewer than the least"),
        pytest.param(looks((MANY, 3, 3.0)), Bounds(most=3, least=3), 3, id="a fixed number, busy"),
        pytest.param(looks((MANY, 3, 0.0)), Bounds(most=3, least=3), 3, id="a fixed number, idle"),
    ],
)
def test_the_number_of_processes_follows_their_load(seen: list[Look], bounds: Bounds, expected: int) -> None:
    assert wanted(seen, bounds) == expected


def test_without_options_one_process_starts_and_the_cores_are_the_most() -> None:
    assert chosen(None, None) == Bounds(most=cores(), least=1)


def test_a_fixed_number_stays() -> None:
    assert chosen(3, None) == Bounds(most=3, least=3)


def test_a_number_and_bounds_contradict_each_other() -> None:
    with pytest.raises(click.UsageError, match="either"):
        chosen(3, Bounds(4))


@pytest.mark.parametrize(
    ("size_bytes", "workers", "processes"),
    [(0, None, 1), (4_000_000, None, 1), (10**12, None, cores()), (0, 7, 7), (10**12, 1, 1)],
)
def test_a_run_takes_as_many_processes_as_its_input_is_worth(
    size_bytes: int, workers: int | None, processes: int
) -> None:
    assert by_input(size_bytes, workers) == Bounds(processes, processes)


@pytest.mark.parametrize("text", ["3,5", "0,0", "a", "", "4,", "-1,1", "1,2,3", "9999,1"])
def test_bounds_that_are_none_are_refused(text: str) -> None:
    result = CliRunner().invoke(commands, ["worker", "--autoscale", text])
    if text == "4,":  # as Celery reads it: at least one
        assert "MAX,MIN" not in result.output
    else:
        assert (result.exit_code, "MAX,MIN" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_a_container_has_the_cores_that_it_is_limited_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores(tmp_path) == expected


def test_a_process_s_use_of_the_processor_is_known() -> None:
    before = cpu_s(os.getpid())
    begun = time.process_time()
    while time.process_time() - begun < 0.05:
        pass
    assert cpu_s(os.getpid()) - before >= 0.03


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert cpu_s(2**22 + 1) == 0
