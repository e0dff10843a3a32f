"""That the limits which the tests' servers keep are those that real servers keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.limits import Admission, Kind, Limit, Standing, Wording, asked_s, retry_after, stated
from workers.providers.answers import retry_after_s

KINDS: list[Kind] = ["fixed", "sliding", "bucket"]
WALL = 1_800_000_000.25


def admitted(limits: list[Limit], arrivals: list[float], tokens: float = 0) -> list[float]:
    """Give the arrivals that are let in."""
    admission = Admission(limits)
    return [at for at in arrivals if admission.ask(tokens, at) == 0]


def test_a_fixed_window_begins_anew_at_each_of_its_multiples() -> None:
    limit = Limit(kind="fixed", limit=2, window_s=10)
    assert admitted([limit], [8, 9, 9.5, 10, 10, 10, 19, 20]) == [8, 9, 10, 10, 20]


def test_a_sliding_window_lets_no_more_than_the_limit_into_any_window() -> None:
    limit = Limit(kind="sliding", limit=2, window_s=10)
    assert admitted([limit], [8, 9, 9.5, 10, 17.9, 18, 18.5, 19]) == [8, 9, 18, 19]


def test_a_bucket_lets_its_burst_through_and_then_what_comes_back() -> None:
    limit = Limit(kind="bucket", limit=60, window_s=60, burst=3)
    assert admitted([limit], [0, 0, 0, 0, 0.9, 1, 1, 9, 9, 9, 9]) == [0, 0, 0, 1, 9, 9, 9]


def test_a_limit_a_minute_and_one_a_second_hold_at_once_and_a_refused_request_uses_neither() -> None:
    second, minute = Limit(kind="fixed", limit=2, window_s=1), Limit(kind="fixed", limit=3, window_s=60)
    assert admitted([minute, second], [0, 0, 0, 1, 1, 59, 60]) == [0, 0, 1, 60]


def test_tokens_count_by_the_request() -> None:
    limit = Limit(kind="sliding", limit=100, window_s=10, unit="tokens")
    assert admitted([limit], [0, 1, 2, 9, 10, 11], tokens=50) == [0, 1, 10, 11]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_above_the_whole_limit_is_let_in_where_nothing_is_used(kind: Kind) -> None:
    admission = Admission([Limit(kind=kind, limit=100, window_s=10, unit="tokens")])
    assert admission.ask(250, now=0) == 0
    assert 9 <= admission.ask(250, now=0.5) <= 25
    assert admission.ask(250, now=25) == 0


@given(
    kind=st.sampled_from(KINDS),
    costs=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    gaps_ms=st.lists(st.integers(0, 3000), min_size=40, max_size=40),
)
def test_who_waits_as_long_as_is_said_is_let_in_and_not_sooner(
    kind: Kind, costs: list[int], gaps_ms: list[int]
) -> None:
    admission, now = Admission([Limit(kind=kind, limit=10, window_s=4, unit="tokens")]), 100.0
    for cost, gap_ms in zip(costs, gaps_ms, strict=False):
        now += gap_ms / 1000
        if wait_s := admission.ask(cost, now):
            assert wait_s < 0.002 or admission.ask(cost, now + wait_s - 0.001) > 0
            now += wait_s + 1e-6
            assert admission.ask(cost, now) == 0


def test_what_is_left_is_told_in_units_a_minute() -> None:
    limits = [Limit(kind="sliding", limit=10, window_s=6), Limit(kind="bucket", limit=600, window_s=6, unit="tokens")]
    admission = Admission(limits)
    admission.ask(200, now=1)
    admission.ask(200, now=3)
    assert sorted(admission.standings(now=4)) == [
        Standing("requests", per_minute=100, remaining=8, reset_s=5),
        Standing("tokens", per_minute=6000, remaining=500, reset_s=1),
    ]


@pytest.mark.parametrize("wording", ["seconds", "ms", "date"])
def test_a_client_reads_from_the_header_how_long_it_is_asked_to_wait(wording: Wording) -> None:
    asked = asked_s(wording, 1.2, WALL)
    assert asked == pytest.approx({"seconds": 2, "ms": 1.2, "date": 1.75}[wording])
    assert retry_after_s(retry_after(wording, 1.2, WALL), WALL) == pytest.approx(asked)


def test_limits_are_stated_as_each_provider_words_them() -> None:
    standings = [Standing("requests", 6000, 12.7, 0.12), Standing("tokens", 60000, 0, 361)]
    assert stated("none", standings, WALL) == {}
    assert stated("openai", standings, WALL) == {
        "x-ratelimit-limit-requests": "6000",
        "x-ratelimit-remaining-requests": "12",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m1s",
    }
    assert stated("anthropic", standings[:1], WALL) == {
        "anthropic-ratelimit-requests-limit": "6000",
        "anthropic-ratelimit-requests-remaining": "12",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:01Z",
    }
