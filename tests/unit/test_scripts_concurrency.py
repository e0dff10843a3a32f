"""The limit that the fleet finds: samples add up, and one worker at a time says what follows from them."""

from __future__ import annotations

import pytest

from batchord.state import concurrency, keys
from batchord.state.calls import Call
from batchord.state.concurrency import KEPT_S, Sample
from tests.unit.fake_state import FakeState, fields, is_documented

ONE = Sample(3, 60.0, 1.5, 2.0, 4.0, 0, 1, 0.75)
BUSY = Sample(busy_s=2.0, room_s=4.0)
PAUSE_S = 1_000.0
KEY = keys.concurrency("p")


def report(state: FakeState, sample: Sample, pause_s: float = PAUSE_S) -> tuple[int, concurrency.Turn | None]:
    return state.run(concurrency.report("p", sample, pause_s, 16))


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_first_sample_gives_a_turn_and_the_others_wait_for_the_next_one(protocol: int) -> None:
    state = FakeState(protocol)
    limit, turn = report(state, ONE)
    assert turn is not None
    assert (limit, turn.course, turn.sample) == (16, b"", ONE)
    assert state.run(concurrency.settle("p", turn, 32, b"course"))
    assert report(state, ONE) == report(state, ONE) == (32, None)
    limit, turn = report(state, ONE._replace(kept=0.5), pause_s=0)
    assert turn is not None
    assert (limit, turn.course) == (32, b"course")
    assert turn.sample == ONE.plus(ONE).plus(ONE)._replace(kept=0.5)
    _, turn = report(state, ONE, pause_s=0)
    assert turn is not None
    assert turn.sample == ONE


def test_a_worker_without_requests_is_told_the_limit_and_leaves_no_trace() -> None:
    state = FakeState()
    assert report(state, Sample(), pause_s=0) == (16, None)
    assert fields(state, KEY) == {}


def test_where_nothing_has_ended_there_is_nothing_to_find_but_it_counts_later() -> None:
    state = FakeState()
    assert report(state, BUSY, pause_s=0) == (16, None)
    _, turn = report(state, ONE, pause_s=0)
    assert turn is not None
    assert turn.sample == ONE.plus(BUSY)


def test_who_was_stopped_in_its_turn_changes_nothing_any_more() -> None:
    state = FakeState()
    _, late = report(state, ONE, pause_s=0)
    _, turn = report(state, ONE, pause_s=0)
    assert late is not None
    assert turn is not None
    assert state.run(concurrency.settle("p", turn, 32, b""))
    assert not state.run(concurrency.settle("p", late, 8, b""))
    assert report(state, Sample()) == (32, None)


def test_a_turn_settled_twice_is_settled_once() -> None:
    state = FakeState()
    _, turn = report(state, ONE)
    assert turn is not None
    assert state.run(concurrency.settle("p", turn, 32, b"x"))
    before = fields(state, KEY)
    assert state.run(concurrency.settle("p", turn, 32, b"x"))
    assert fields(state, KEY) == before


def test_a_clock_that_was_set_back_does_not_stop_the_turns() -> None:
    state = FakeState()
    state.run(Call(("HSET", KEY, "at", "9999999999"), int))
    assert report(state, ONE)[1] is not None


def test_what_was_found_is_forgotten_in_the_end() -> None:
    state = FakeState()
    for sample in (BUSY, ONE):
        report(state, sample)
        assert 0 < state.run(Call(("TTL", KEY), int)) <= KEPT_S
    assert is_documented(KEY)
