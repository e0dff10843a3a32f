"""Which limits a model's requests keep, and how long each takes a bucket."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.routing import ModelLimits, Provider
from workers.providers.seam import StatedLimit
from workers.rates import NO_RATES, Limit, Rates, in_force, rate_lane, rates_stated

PLAIN = Provider(name="p", base_url="http://p")


def provider(requests: int | None = None, tokens: int | None = None, **limits: ModelLimits) -> Provider:
    named = {glob.replace("_", "-") + "*": limit for glob, limit in limits.items()}
    return PLAIN.model_copy(update={"requests_per_minute": requests, "tokens_per_minute": tokens, "limits": named})


def buckets(of: Provider, model: str, learned: dict[str, Rates] | None = None) -> dict[str, float]:
    lane = rate_lane(of, model, learned or {})
    assert lane is not None
    return {limit.name + (" (shared)" if limit.is_shared else ""): limit.per_minute for limit in lane.limits}


def test_without_limits_there_is_no_lane() -> None:
    assert rate_lane(PLAIN, "m", {}) is None
    assert rate_lane(provider(big=ModelLimits(max_concurrency=3)), "big-1", {}) is None


def test_models_without_limits_of_their_own_share_the_providers_lane() -> None:
    of = provider(600, 9_000, big=ModelLimits(requests_per_minute=60))
    assert rate_lane(of, "m", {}) == rate_lane(of, "n", {})
    assert buckets(of, "m") == {"requests provider": 600, "tokens provider": 9_000}


def test_a_models_limits_hold_beside_the_providers() -> None:
    assert buckets(provider(600, 9_000, big=ModelLimits(requests_per_minute=60)), "big-1") == {
        "requests provider (shared)": 600,
        "tokens provider (shared)": 9_000,
        "requests glob big*": 60,
        "tokens glob big*": 9_000,
    }


def test_the_first_glob_that_matches_counts() -> None:
    of = provider(big_1=ModelLimits(requests_per_minute=1), big=ModelLimits(requests_per_minute=2))
    assert buckets(of, "big-1x") == {"requests glob big-1*": 1}
    assert buckets(of, "big-2") == {"requests glob big*": 2}


def test_what_a_provider_says_counts_where_nothing_lower_is_stated() -> None:
    learned = {"m": Rates(500, 8_000), "high": Rates(700, None)}
    assert buckets(PLAIN, "m", learned) == {"requests model m": 500, "tokens model m": 8_000}
    assert buckets(provider(600), "m", learned) == {
        "requests provider (shared)": 600,
        "requests model m": 500,
        "tokens model m": 8_000,
    }
    assert buckets(provider(600), "high", learned) == {"requests provider": 600}


def test_what_is_shown_is_what_is_stated_or_the_lowest_learned() -> None:
    assert in_force(PLAIN, {}) == NO_RATES
    assert in_force(provider(600), {"a": Rates(None, 80), "b": Rates(None, 90)}) == Rates(600, 80)


@pytest.mark.parametrize(
    ("stated", "rates"),
    [
        ([], NO_RATES),
        ([StatedLimit("requests", 60, 500), StatedLimit("tokens", 60, 9_000)], Rates(500, 9_000)),
        ([StatedLimit("requests", 1, 10)], Rates(600, None)),
        ([StatedLimit("requests", 86_400, 10), StatedLimit("tokens", 60, 90)], Rates(None, 90)),
        ([StatedLimit("tokens", 60, 90), StatedLimit("tokens", 60, 70), StatedLimit("tokens", 60)], Rates(None, 70)),
        ([StatedLimit("requests", 60, None, 0, 5)], NO_RATES),
    ],
)
def test_only_limits_by_the_minute_say_how_fast_to_send(stated: list[StatedLimit], rates: Rates) -> None:
    assert rates_stated(stated) == rates


@given(st.integers(1, 100_000))
def test_no_minute_holds_more_requests_than_the_limit(per_minute: int) -> None:
    cost_s = Limit("requests", is_shared=False, per_minute=per_minute, counts_tokens=False).cost_s(0)
    assert math.ceil(60 / cost_s) <= per_minute
    assert cost_s == pytest.approx(60 / per_minute / 0.99)


@given(st.integers(1, 1_000_000), st.integers(1, 1_000_000))
def test_no_minute_holds_more_tokens_than_the_limit_unless_one_request_does(per_minute: int, tokens: int) -> None:
    cost_s = Limit("tokens", is_shared=False, per_minute=per_minute, counts_tokens=True).cost_s(tokens)
    assert math.ceil(round(60 / cost_s, 6)) * tokens <= max(per_minute, tokens)
    assert cost_s >= 59.999 * tokens / per_minute


def test_a_request_of_no_tokens_takes_none() -> None:
    assert Limit("tokens", is_shared=False, per_minute=10, counts_tokens=True).cost_s(0) == 0
