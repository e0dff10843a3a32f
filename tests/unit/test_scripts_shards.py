from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.lifecycle import Status
from batchord.state import keys, shards
from batchord.state.keys import Shard
from batchord.state.shards import Contact, OpenShard
from tests.unit.fake_state import (
    CLAIM_S,
    CREATED_AT,
    DEADLINE,
    WIDE,
    begin,
    contents,
    fields,
    key_names,
    move,
    opened,
    pass_time,
    record,
    record_of,
    started,
    succeeded,
    time_of,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState


def open_next(
    state: BlockingState, batch_id: str, window_lines: int = WIDE, provider: str = "local"
) -> tuple[int, int] | None:
    return state.run(shards.open_next(batch_id, provider, window_lines))


def idle(state: BlockingState, batch_id: str) -> list[tuple[int, float]]:
    """Give the open shards with the seconds since their last progress, to the hundred."""
    return [(number, round(idle_s, -2)) for number, idle_s in state.run(shards.open_numbers(batch_id, "local"))]


def open_lines(state: BlockingState, batch_id: str, provider: str = "local") -> int:
    return int(fields(state, keys.batch(batch_id))[f"open_lines:{provider}"])


def complete(state: BlockingState, shard: Shard, lines: int) -> None:
    """Record every line, and seal."""
    assert state.run(record(shard, succeeded(*range(lines)))) == lines
    assert state.run(shards.seal(shard, 0))


def test_shards_open_in_their_order_each_once(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 3, 1]})
    assert [open_next(state, batch_id) for _ in range(5)] == [(0, 2), (1, 3), (2, 1), None, None]
    assert record_of(state, batch_id).shards["local"].opened == 3


def test_two_feeds_at_once_open_different_shards(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 3]})
    calls = [shards.open_next(batch_id, "local", WIDE)] * 3
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


@pytest.mark.parametrize(("left_s", "opens"), [(100, True), (-100, False)])
def test_no_shard_opens_from_the_deadline_on(state: BlockingState, left_s: float, *, opens: bool) -> None:
    batch_id = started(state, {"local": [2]})
    pass_time(state, int(DEADLINE - time_of(state) - left_s))
    before = contents(state)
    assert (state.run(shards.open_next(batch_id, "local", WIDE)) is not None) is opens
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
    state.run(record(shard, succeeded(0, 2)))
    assert state.run(shards.progress(shard)) == OpenShard(3, 2)
    assert state.run(shards.progress(shard._replace(number=1))) is None


@pytest.mark.parametrize("recorded", [0, 1, 2])
def test_a_shard_is_not_sealed_while_a_line_has_no_outcome(state: BlockingState, recorded: int) -> None:
    shard = opened(state, 3)
    state.run(record(shard, succeeded(*range(recorded))))
    before = contents(state)
    assert not state.run(shards.seal(shard, 0))
    assert contents(state) == before


def test_a_seal_removes_every_key_of_its_shard_and_no_other(state: BlockingState) -> None:
    shard = opened(state, 2, 1)
    open_next(state, shard.batch_id)
    others = key_names(state) - {keys.shard(shard)}
    begin(state, shard, "dead", 0)
    pass_time(state, CLAIM_S)
    assert begin(state, shard, "w", 0, 1) == [shards.Verdict.SEND] * 2
    assert keys.strikes(shard) in key_names(state)
    complete(state, shard, 2)
    assert key_names(state) == others | {keys.analytics(shard.batch_id)}
    assert [number for number, _ in state.run(shards.open_numbers(shard.batch_id, "local"))] == [1]


def test_the_last_seal_leaves_no_key_of_any_shard(state: BlockingState) -> None:
    shard = opened(state, 2)
    begin(state, shard, "gone", 0)
    pass_time(state, CLAIM_S)
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
    for _ in range(3):
        open_next(state, batch_id)
        pass_time(state, 100)
    assert idle(state, batch_id) == [(0, 300), (1, 200), (2, 100)]
    state.run(record(Shard(batch_id, "local", 0), succeeded(0)))
    pass_time(state, 100)
    state.run(shards.touch(Shard(batch_id, "local", 1)))
    assert idle(state, batch_id) == [(2, 200), (0, 100), (1, 0)]


def test_a_record_that_changes_nothing_is_no_progress(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(record(shard, succeeded(0)))
    pass_time(state, 100)
    state.run(record(shard, succeeded(0)))
    assert idle(state, shard.batch_id) == [(0, 100)]


def test_a_shard_that_is_hurried_is_the_stillest(state: BlockingState) -> None:
    shard = opened(state, 2, 2)
    pass_time(state, 100)
    open_next(state, shard.batch_id)
    state.run(shards.hurry(shard._replace(number=1)))
    assert [number for number, _ in idle(state, shard.batch_id)] == [1, 0]
    assert dict(idle(state, shard.batch_id))[1] > CREATED_AT


def test_touching_a_shard_that_is_not_open_leaves_no_trace(state: BlockingState) -> None:
    shard = opened(state, 1)
    complete(state, shard, 1)
    before = contents(state)
    state.run_all([shards.touch(shard), shards.hurry(shard)])
    assert contents(state) == before


def test_after_a_disown_any_worker_may_send_what_was_claimed(state: BlockingState) -> None:
    shard = opened(state, 2)
    begin(state, shard, "dead", 0, 1)
    state.run(shards.disown(shard))
    newcomer = Contact()
    assert state.run(shards.missing(shard, CLAIM_S, newcomer)).indices == [0, 1]
    assert state.run(shards.begin(shard, "new", CLAIM_S, newcomer, [0, 1])) == [shards.Verdict.SEND] * 2
