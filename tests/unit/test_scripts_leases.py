from __future__ import annotations

from typing import TYPE_CHECKING

from batchord.state import keys, leases
from batchord.state.calls import Call
from tests.unit.fake_state import key_names, pass_time, started, time_of

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState

LEASE = keys.SWEEP_LEASE


def life_ms(state: BlockingState, lease: str) -> int:
    return state.run(Call(("PTTL", lease), int))


def test_a_lease_that_another_holds_is_not_given(state: BlockingState) -> None:
    assert state.run_all([leases.take(LEASE, "a", 60), leases.take(LEASE, "b", 600)]) == [True, False]
    assert 30_000 < life_ms(state, LEASE) <= 60_000


def test_its_holder_prolongs_a_lease(state: BlockingState) -> None:
    assert state.run_all([leases.take(LEASE, "a", 60), leases.take(LEASE, "a", 600)]) == [True, True]
    assert 500_000 < life_ms(state, LEASE) <= 600_000


def test_a_lease_lives_for_fractions_of_a_second(state: BlockingState) -> None:
    state.run(leases.take(LEASE, "a", 59.5))
    assert 30_000 < life_ms(state, LEASE) <= 59_500


def test_a_lease_that_ran_out_goes_to_the_next_who_asks(state: BlockingState) -> None:
    state.run(leases.take(LEASE, "a", 60))
    state.run(Call(("PEXPIRE", LEASE, 0), int))
    assert state.run(leases.take(LEASE, "b", 60))
    assert not state.run(leases.let_go(LEASE, "a"))
    assert not state.run(leases.take(LEASE, "a", 60))


def test_only_its_holder_ends_a_lease(state: BlockingState) -> None:
    state.run(leases.take(LEASE, "a", 60))
    assert state.run_all([leases.let_go(LEASE, "b"), leases.let_go(LEASE, "a"), leases.let_go(LEASE, "a")]) == [
        False,
        True,
        False,
    ]
    assert key_names(state) == set()


def test_the_leases_of_two_steps_and_two_batches_are_apart(state: BlockingState) -> None:
    names = [keys.step_lease(batch_id, step) for batch_id in ("batch_a", "batch_b") for step in ("plan", "finalize")]
    assert state.run_all([leases.take(name, name, 60) for name in names]) == [True] * 4


def test_a_worker_is_alive_for_as_long_as_its_last_beat_said(state: BlockingState) -> None:
    state.run_all([leases.beat("a", 1_000), leases.beat("b", 2_000)])
    pass_time(state, 500)
    state.run(leases.beat("a", 3_000))
    assert state.run(leases.alive()) == ["b", "a"]
    pass_time(state, 1_700)
    assert state.run(leases.alive()) == ["a"]
    pass_time(state, 1_700)
    assert state.run(leases.alive()) == []


def test_a_beat_tells_the_time_of_redis(state: BlockingState) -> None:
    before = time_of(state)
    assert before <= state.run(leases.beat("a", 10)) <= time_of(state)


def test_a_worker_that_leaves_is_not_alive(state: BlockingState) -> None:
    state.run(leases.beat("a", 1_000))
    for _ in range(2):
        state.run(leases.leave("a"))
    assert state.run(leases.alive()) == []
    assert key_names(state) == set()


def test_a_worker_is_forgotten_an_hour_after_its_death(state: BlockingState) -> None:
    state.run_all([leases.beat("a", 1_000), leases.beat("b", 2_000)])
    pass_time(state, 1_000 + 3_600)
    state.run(leases.beat("c", 1_000))
    assert state.run(Call(("ZRANGE", keys.WORKERS, 0, -1), list)) == [b"b", b"c"]


def test_ending_all_leases_of_a_dead_fleet_leaves_its_batch(state: BlockingState) -> None:
    batch_id = started(state, {"local": [1]})
    before = key_names(state)
    for step in ("plan", "finalize"):
        state.run(leases.take(keys.step_lease(batch_id, step), "a", 60))
    state.run_all([leases.beat("a", 10), leases.take(LEASE, "a", 60)])
    for _ in range(2):
        state.run(leases.end_all([batch_id]))
    assert key_names(state) == before
