from __future__ import annotations

import pytest

from batchord.state import keys, rates
from batchord.state.calls import Call
from batchord.state.rates import AHEAD_S, Bucket, Learned, Times
from tests.unit.fake_state import FakeState, fields
from tests.unit.virtual_time import ClockedState

REQUESTS = Bucket("requests provider", is_shared=False)
TOKENS = Bucket("tokens provider", is_shared=False)
SHARED = Bucket("requests provider", is_shared=True)


def reserve(state: FakeState, costs_s: list[float], bucket: Bucket = REQUESTS) -> Times:
    return state.run(rates.reserve("p", [bucket], [[cost] for cost in costs_s]))


def test_requests_are_spaced_by_what_each_takes() -> None:
    state = ClockedState()
    assert reserve(state, [0.1, 0.2, 0.1, 0.1]).delays_s == pytest.approx([0, 0.1, 0.3, 0.4])


def test_a_later_group_goes_on_where_the_former_one_ended() -> None:
    state = ClockedState()
    reserve(state, [0.1] * 4)
    state.now += 0.15
    assert reserve(state, [0.1]).delays_s == pytest.approx([0.25], abs=1e-5)


def test_times_are_given_only_a_little_ahead() -> None:
    times = reserve(ClockedState(), [0.2] * 100)
    assert times.delays_s == pytest.approx([0, 0.2, 0.4])
    assert times.again_s == pytest.approx(0.6 - AHEAD_S / 2)


def test_who_gets_no_time_hears_when_to_ask_again_and_gets_one_then() -> None:
    state = ClockedState()
    assert reserve(state, [60.0]).delays_s == [0]
    times = reserve(state, [60.0])
    assert times.delays_s == []
    state.now += times.again_s
    assert reserve(state, [60.0]).delays_s == pytest.approx([60 - times.again_s], abs=1e-5)


def test_an_idle_hour_gives_no_credit() -> None:
    state = ClockedState()
    reserve(state, [0.1])
    state.now += 3600
    assert reserve(state, [0.1] * 3).delays_s == pytest.approx([0, 0.1, 0.2])


def test_the_slowest_bucket_sets_the_time_and_the_others_keep_their_distance_from_it() -> None:
    state = ClockedState()
    times = state.run(rates.reserve("p", [REQUESTS, TOKENS], [(0.1, 0.3), (0.1, 0.01), (0.1, 0.01)]))
    assert times.delays_s == pytest.approx([0, 0.3, 0.4])


def test_a_shared_bucket_is_not_kept_for_the_gaps_of_a_slow_lane() -> None:
    state = ClockedState()
    slow = Bucket("requests slow", is_shared=False)
    assert state.run(rates.reserve("p", [SHARED, slow], [(0.05, 0.4), (0.05, 0.4)])).delays_s == pytest.approx([0, 0.4])
    assert reserve(state, [0.05]).delays_s == pytest.approx([0.1])


@pytest.mark.parametrize(("correction_s", "delay_s"), [(0.2, 0.3), (-0.05, 0.05), (-100, 0)])
def test_a_correction_moves_what_comes_after(correction_s: float, delay_s: float) -> None:
    state = ClockedState()
    reserve(state, [0.1])
    assert reserve(state, [0.1], Bucket(REQUESTS.name, is_shared=False, correction_s=correction_s)).delays_s == (
        pytest.approx([delay_s], abs=1e-5)
    )


def test_a_correction_downwards_leaves_no_credit() -> None:
    state = ClockedState()
    reserve(state, [], Bucket(REQUESTS.name, is_shared=False, correction_s=-100))
    assert reserve(state, [0.1, 0.1]).delays_s == pytest.approx([0, 0.1])


def test_a_clock_set_back_makes_nobody_wait_longer() -> None:
    state = ClockedState()
    reserve(state, [0.1] * 4)
    state.now -= 7200
    assert reserve(state, [0.1]).delays_s == pytest.approx([0.4], abs=1e-5)


@pytest.mark.parametrize("cost_s", [1e6, 1e18])
def test_a_nonsensical_cost_stops_nobody_for_ever_nor_who_brought_it(cost_s: float) -> None:
    state = ClockedState()
    assert 300 < reserve(state, [cost_s]).again_s <= 600
    assert 300 < reserve(state, [0.1]).again_s <= 600


def test_the_clock_is_that_of_redis_and_the_rates_have_a_time_to_live() -> None:
    state = FakeState()
    reserve(state, [0.1])
    free, written = fields(state, keys.rates("p"))[REQUESTS.name].split()
    assert float(free) - float(written) == pytest.approx(0.1, abs=1e-5)
    assert 86_000 < state.run(Call(("TTL", keys.rates("p")), int)) <= 86_400


def test_a_learned_limit_is_told_to_all_and_later_words_replace_it() -> None:
    state = ClockedState()
    first = Learned("requests", "a model: x", 500.5)
    assert state.run(rates.learn("p", [first])) == [first]
    second = [Learned("requests", "a model: x", 400.0), Learned("tokens", "y", 9.0)]
    state.run(rates.learn("p", second))
    reserve(state, [0.1])
    assert sorted(state.run(rates.learn("p"))) == second
    assert state.run(rates.learn("q")) == []


def test_a_limit_that_nobody_states_again_is_forgotten_and_so_is_an_old_bucket() -> None:
    state = ClockedState()
    state.run(rates.learn("p", [Learned("tokens", "old", 1.0)]))
    reserve(state, [0.1])
    state.now += 3000
    new = Learned("tokens", "new", 2.0)
    state.run(rates.learn("p", [new]))
    state.now += 700
    assert state.run(rates.learn("p")) == [new]
    assert list(fields(state, keys.rates("p"))) == ["learned tokens new"]


def test_no_number_of_models_fills_redis() -> None:
    state = ClockedState()
    limits = [Learned("tokens", f"m{number}", 1.0) for number in range(1_010)]
    assert len(state.run(rates.learn("p", limits))) == 1_000
    changed = Learned("tokens", "m0", 2.0)
    assert changed in state.run(rates.learn("p", [changed, Learned("tokens", "one more", 1.0)]))
    assert len(fields(state, keys.rates("p"))) == 1_000
