"""That the parts of the benchmark that are about providers measure what they say. No times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import adaptive, fairness, isolation, prefix, rates, runs

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_is_timed_by_what_the_limited_server_saw(tmp_path: Path, empty: Path) -> None:
    shape = rates.Shape(40, 6_000, 612_000, workers=(1,), ways=("bucket",))
    source = runs.write_input(tmp_path / "input.jsonl", shape.lines)
    cells = rates.cells(shape)
    assert [(cell.unit, cell.tool) for cell in cells] == [
        ("requests", "batchord"),
        ("tokens", "batchord"),
        ("requests", "lm-deluge"),
    ]
    paced = rates.measure(shape, cells[1], source, empty)
    assert paced.requests >= paced.answered == 40
    assert paced.took_s > 0
    assert 0.2 < paced.least_s < 0.6  # 40 times about 102 tokens
    assert rates.table([paced]).rows[0][:3] == ("tokens, bucket", "batchord", "1")


def test_what_a_fleet_finds_of_a_capacity_is_told_from_the_server_s_answers(tmp_path: Path, empty: Path) -> None:
    shape = adaptive.Shape(places=4, lines=60, settled_s=1, workers=(1,))
    source = runs.write_input(tmp_path / "input.jsonl", shape.lines)
    found = adaptive.measure(shape, "lets them wait", source, empty, workers=1)
    assert found.requests == 60
    assert 0 < found.share <= 1.5
    assert found.error_share == 0


def test_the_goal_is_reached_at_the_end_of_the_first_window_that_has_its_rate() -> None:
    answered = [second + tenth / 10 for second in range(5, 10) for tenth in range(10)]
    assert adaptive.rate(answered, 0, 10) == 5
    assert adaptive.reached_after_s(answered, per_s=9, last_s=10) == pytest.approx(6.8)
    assert adaptive.reached_after_s(answered, per_s=11, last_s=10) is None


def test_a_small_batch_is_timed_alone_and_beside_a_large_one(empty: Path) -> None:
    shape = fairness.Shape(large_lines=3_000, small_lines=2, in_flight=8, window_lines=80)
    waited = fairness.measure(shape, empty, rounds=1)
    assert waited.beside_s > 0 < waited.alone_s
    assert waited.window_s == pytest.approx(1.0)


def test_a_provider_s_rate_is_taken_alone_and_beside_one_in_trouble(tmp_path: Path, empty: Path) -> None:
    shape = isolation.Shape(lines=40, in_flight=8, troubled_in_flight=8)
    alone = tmp_path / "alone"
    alone.mkdir()
    beside = isolation.beside(shape, "hangs", isolation.alone(shape, alone), empty)
    assert beside.ratio > 0 < beside.alone_lines_per_s


def test_lines_in_the_order_of_their_prefixes_are_read_from_the_cache(empty: Path) -> None:
    shape = prefix.Shape(lines=200, prefixes=10, prefixes_most=3, in_flight=4)
    assert 0.3 < prefix.measure(shape, empty, prefix_order=True).cached_share < 0.96
