from __future__ import annotations

from typing import Any

import pytest

from batchord.routing import Provider
from workers.lanes import lane_of, lanes

LIMITS = {
    "gpt-4o-mini*": {"requests_per_minute": 60},
    "gpt-4*": {"max_concurrency": 4},
    "o?-*": {"max_concurrency": 2},
}


def provider(**fields: Any) -> Provider:
    return Provider(name="p", kind="simulated", **fields)


def test_a_provider_is_a_lane_and_so_are_the_models_that_it_limits_apart() -> None:
    assert lanes(provider(max_concurrency=9, limits=LIMITS)) == {"p": 9, "p/gpt-4*": 4, "p/o?-*": 2}


def test_a_provider_that_states_no_limit_has_the_bound_of_what_is_learned() -> None:
    assert lanes(provider()) == {"p": 1_000}


@pytest.mark.parametrize(
    ("model", "lane"),
    [("gpt-4", "p/gpt-4*"), ("gpt-4o-mini-2024", None), ("o3-large", "p/o?-*"), ("llama", None), ("GPT-4", None)],
)
def test_a_model_s_lane_is_that_of_the_first_glob_that_matches_it(model: str, lane: str | None) -> None:
    assert lane_of(provider(limits=LIMITS), model) == lane
