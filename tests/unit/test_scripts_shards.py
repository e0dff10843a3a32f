from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.lifecycle import Status
from batchord.state import keys, shards
from batchord.state.keys import Shard
from batchord.state.shards import OpenShard
from tests.unit.fake_state import (
    CREATED_AT,
    DEADLINE,
    WIDE,
    FakeState,
    contents,
    fields,
    key_names,
    move,
    opened,
    record_of,
    started,
    succeeded,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState

NOW = 1_500.75


@pytest.fixture
def state() -> BlockingState:
    return FakeState()


def open_next(
    state: BlockingState, batch_id: str, window_lines: int = WIDE, provider: str = "local"
) -> tuple[int, int] | None:
    return state.run(shards.open_next(batch_id, provider, NOW, window_lines))


def open_lines(state: BlockingState, batch_id: str, provider: str = "local") -> int:
    return int(fields(state, keys.batch(batch_id))[f"open_lines:{provider}"])


def complete(state: BlockingState, shard: Shard, lines: int) -> None:
    """Record every line, and seal."""
    assert state.run(shards.record(shard, NOW, succeeded(*range(lines)))) == lines
    assert state.run(shards.seal(shard, 0))


def test_shards_open_in_their_order_each_once(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 3, 1]})
    assert [open_next(state, batch_id) for _ in range(5)] == [(0, 2), (1, 3), (2, 1), None, None]
    assert record_of(state, batch_id).shards["local"].opened == 3


def test_two_feeds_at_once_open_different_shards(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 3]})
    calls = [shards.open_next(batch_id, "local", NOW, WIDE)] * 3
    assert state.run_all(calls) == [(0, 2), (1, 3), None]


def test_a_shard_opens_only_while_the_window_has_room_for_all_its_lines(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 3]})
    assert open_next(state, batch_id, window_lines=4) == (0, 2)
    assert open_next(state, batch_id, window_lines=4) is None
    assert open_next(state, batch_id, window_lines=5) == (1, 3)
    assert open_lines(state, batch_id) == 5


def test_a_seal_makes_room_for_the_next_shard(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 2]})
    assert open_next(state, batch_id, window_lines=3) == (0, 2)
    assert open_next(state, batch_id, window_lines=3) is None
    complete(state, Shard(batch_id, "local", 0), 2)
    assert open_next(state, batch_id, window_lines=3) == (1, 2)


def test_a_shard_larger_than_the_window_opens_alone(state: BlockingState) -> None:
    batch_id = started(state, {"local": [1, 9, 1]})
    assert open_next(state, batch_id, window_lines=3) == (0, 1)
    assert open_next(state, batch_id, window_lines=3) is None
    complete(state, Shard(batch_id, "local", 0), 1)
    assert open_next(state, batch_id, window_lines=3) == (1, 9)
    assert open_next(state, batch_id, window_lines=3) is None


def test_each_provider_has_its_own_window_and_numbers(state: BlockingState) -> None:
    batch_id = started(state, {"local": [3], "other": [3, 1]})
    assert open_next(state, batch_id, 3, "local") == (0, 3)
    assert open_next(state, batch_id, 3, "other") == (0, 3)
    complete(state, Shard(batch_id, "local", 0), 3)
    assert (open_lines(state, batch_id, "local"), open_lines(state, batch_id, "other")) == (0, 3)
    assert state.run(shards.progress(Shard(batch_id, "other", 0))) == OpenShard(3, 0)


@pytest.mark.parametrize(("now", "opens"), [(DEADLINE - 0.01, True), (DEADLINE, False), (DEADLINE + 5.5, False)])
def test_no_shard_opens_from_the_deadline_on(state: BlockingState, now: float, *, opens: bool) -> None:
    batch_id = started(state, {"local": [2]})
    before = contents(state)
    assert (state.run(shards.open_next(batch_id, "local", now, WIDE)) is not None) is opens
    assert (contents(state) != before) is opens


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.IN_PROGRESS])
def test_no_shard_opens_unless_the_batch_is_in_progress(state: BlockingState, status: Status) -> None:
    batch_id = started(state, {"local": [2]})
    move(state, batch_id, status)
    before = contents(state)
    assert open_next(state, batch_id) is None
    assert contents(state) == before


def test_no_shard_of_an_absent_batch_opens(state: BlockingState) -> None:
    assert open_next(state, "batch_none") is None
    assert key_names(state) == set()


def test_progress_tells_how_many_lines_of_an_open_shard_are_recorded(state: BlockingState) -> None:
    shard = opened(state, 3)
    state.run(shards.record(shard, NOW, succeeded(0, 2)))
    assert state.run(shards.progress(shard)) == OpenShard(3, 2)
    assert state.run(shards.progress(shard._replace(number=1))) is None


@pytest.mark.parametrize("recorded", [0, 1, 2])
def test_a_shard_is_not_sealed_while_a_line_has_no_outcome(state: BlockingState, recorded: int) -> None:
    shard = opened(state, 3)
    state.run(shards.record(shard, NOW, succeeded(*range(recorded))))
    before = contents(state)
    assert not state.run(shards.seal(shard, 0))
    assert contents(state) == before


def test_a_seal_removes_every_key_of_its_shard_and_no_other(state: BlockingState) -> None:
    shard = opened(state, 2, 1)
    open_next(state, shard.batch_id)
    others = key_names(state) - {keys.shard(shard)}
    state.run(shards.begin(shard, "w", NOW, NOW + 60, [0, 1]))
    complete(state, shard, 2)
    assert key_names(state) == others | {keys.analytics(shard.batch_id)}
    assert state.run(shards.open_numbers(shard.batch_id, "local")) == [(1, NOW)]


def test_the_last_seal_leaves_no_key_of_any_shard(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(shards.begin(shard, "dead", NOW, NOW + 60, [0]))
    complete(state, shard, 2)
    batch_id = shard.batch_id
    assert key_names(state) == {keys.batch(batch_id), keys.analytics(batch_id), keys.lines(batch_id, "local")}


def test_a_shard_sealed_twice_frees_the_window_once(state: BlockingState) -> None:
    shard = opened(state, 2, 3)
    open_next(state, shard.batch_id)
    complete(state, shard, 2)
    assert not state.run(shards.seal(shard, 0))
    assert open_lines(state, shard.batch_id) == 3


def test_a_shard_that_was_never_opened_is_not_sealed(state: BlockingState) -> None:
    shard = opened(state, 2, 3)
    before = contents(state)
    assert not state.run(shards.seal(shard._replace(number=1), 0))
    assert contents(state) == before


@pytest.mark.parametrize("status", [Status.CANCELLING, Status.FINALIZING])
def test_a_shard_still_open_when_its_batch_ends_can_be_sealed(state: BlockingState, status: Status) -> None:
    shard = opened(state, 2)
    move(state, shard.batch_id, status)
    complete(state, shard, 2)
    assert open_lines(state, shard.batch_id) == 0


def test_open_shards_are_listed_the_stillest_first(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 2, 2]})
    for at in (10.5, 11, 12):
        state.run(shards.open_next(batch_id, "local", at, WIDE))
    assert state.run(shards.open_numbers(batch_id, "local")) == [(0, 10.5), (1, 11), (2, 12)]
    state.run(shards.record(Shard(batch_id, "local", 0), 13, succeeded(0)))
    state.run(shards.touch(Shard(batch_id, "local", 1), 14))
    assert state.run(shards.open_numbers(batch_id, "local")) == [(2, 12), (0, 13), (1, 14)]


def test_a_record_that_changes_nothing_is_no_progress(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(shards.record(shard, NOW, succeeded(0)))
    state.run(shards.record(shard, NOW + 50, succeeded(0)))
    assert state.run(shards.open_numbers(shard.batch_id, "local")) == [(0, NOW)]


def test_touching_a_shard_that_is_not_open_leaves_no_trace(state: BlockingState) -> None:
    shard = opened(state, 1)
    complete(state, shard, 1)
    before = contents(state)
    state.run(shards.touch(shard, NOW))
    assert contents(state) == before


def test_after_a_disown_any_worker_may_send_what_was_claimed(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(shards.begin(shard, "dead", CREATED_AT, DEADLINE, [0, 1]))
    state.run(shards.disown(shard))
    assert state.run(shards.missing(shard, CREATED_AT)) == [0, 1]
    assert state.run(shards.begin(shard, "new", CREATED_AT, DEADLINE, [0, 1])) == [shards.Verdict.SEND] * 2
