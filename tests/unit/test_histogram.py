from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.histogram import bucket_of, percentile

DURATIONS = st.lists(st.floats(min_value=0, max_value=1e7), min_size=1, max_size=200)
ERROR, FLOOR_MS = 0.025, 1.03


@given(DURATIONS, st.integers(1, 100))
def test_a_percentile_is_off_by_no_more_than_it_says(durations_ms: list[float], percent: int) -> None:
    exact = sorted(durations_ms)[math.ceil(len(durations_ms) * percent / 100) - 1]
    estimated = percentile(Counter(map(bucket_of, durations_ms)), percent)
    assert estimated is not None
    assert abs(estimated - exact) <= max(exact * ERROR, FLOOR_MS)


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_a_longer_duration_is_in_no_lower_bucket(one: float, other: float) -> None:
    assert bucket_of(min(one, other)) <= bucket_of(max(one, other))


def test_nothing_has_no_percentiles() -> None:
    assert percentile({}, 50) is None


@pytest.mark.parametrize(("percent", "around_ms"), [(50, 100), (94, 100), (95, 100), (96, 3_000), (100, 3_000)])
def test_the_rank_is_the_nearest(percent: int, around_ms: float) -> None:
    buckets = {bucket_of(100): 95, bucket_of(3_000): 5}
    assert percentile(buckets, percent) == pytest.approx(around_ms, rel=ERROR)


def test_ten_minutes_take_few_buckets() -> None:
    assert bucket_of(600_000) < 300
