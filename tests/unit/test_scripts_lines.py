from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from batchord.contract import Usage
from batchord.lifecycle import Outcome
from batchord.state import keys, shards
from batchord.state.calls import Call
from batchord.state.shards import Answered, LineRecord
from tests.unit.fake_state import contents, key_names, late, opened, record, record_of, succeeded

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState
    from batchord.state.keys import Shard

ANSWERED = (Outcome.SUCCEEDED, Outcome.FAILED)


def forget_late(state: BlockingState, shard: Shard) -> None:
    state.run(Call(("HDEL", keys.batch(shard.batch_id), "late"), int))


def counts(state: BlockingState, shard: Shard) -> dict[Outcome, int]:
    batch = record_of(state, shard.batch_id)
    requests = batch.batch.request_counts
    numbers = (requests.completed, requests.failed, batch.cancelled_lines, batch.expired_lines)
    return dict(zip(Outcome, numbers, strict=True))


@pytest.mark.parametrize(("first", "second"), list(product(Outcome, Outcome)))
def test_a_line_recorded_twice_counts_once_whatever_the_second_says(
    state: BlockingState, first: Outcome, second: Outcome
) -> None:
    shard = opened(state, 2)
    state.run(record(shard, [LineRecord(0, first, b'{"n":1}', 2, Usage(10, 5, 20, 7, 30))]))
    before = contents(state)
    assert state.run(record(shard, [LineRecord(0, second, b'{"n":2}', 9, Usage(9, 9, 9, 9, 9))])) == 0
    assert late(state, shard.batch_id) == (second in ANSWERED)
    forget_late(state, shard)
    assert contents(state) == before
    assert counts(state, shard) == {outcome: int(outcome is first) for outcome in Outcome}
    seen = record_of(state, shard.batch_id)
    assert (seen.batch.usage, seen.retries) == (Usage(10, 5, 20, 7, 30), 2)
    assert state.run(shards.outcomes(shard, [0, 1])) == [first.encode() + b'{"n":1}', None]


def test_a_line_twice_in_one_call_counts_once(state: BlockingState) -> None:
    shard = opened(state, 2)
    lines = [LineRecord(0, Outcome.FAILED, b"a", 1), LineRecord(1, Outcome.SUCCEEDED, b"b"), *succeeded(0)]
    assert state.run(record(shard, lines)) == 2
    assert counts(state, shard) == {"s": 1, "f": 1, "c": 0, "e": 0}
    assert state.run(shards.seal(shard, 0))


def test_a_call_that_repeats_some_lines_records_the_others(state: BlockingState) -> None:
    shard = opened(state, 4)
    state.run(record(shard, succeeded(1, 3)))
    assert state.run(record(shard, succeeded(0, 1, 2, 3))) == 2
    assert record_of(state, shard.batch_id).batch.request_counts.completed == 4


def test_the_same_index_of_two_shards_is_two_lines(state: BlockingState) -> None:
    shard = opened(state, 1, 1)
    state.run(shards.open_next(shard.batch_id, "local", 10))
    for number in (0, 1):
        assert state.run(record(shard._replace(number=number), succeeded(0))) == 1
    assert record_of(state, shard.batch_id).recorded == 2


def test_nothing_to_record_changes_nothing(state: BlockingState) -> None:
    shard = opened(state, 1)
    before = contents(state)
    assert state.run(record(shard, [])) == 0
    assert contents(state) == before


@pytest.mark.parametrize("cost_nanos", [None, 2**53 * 15_000])
def test_usage_past_what_can_be_counted_keeps_no_shard_from_its_end(
    state: BlockingState, cost_nanos: int | None
) -> None:
    shard, usage = opened(state, 1025), Usage(2**53, 0, 2**53, 0, 2**53)
    for first in range(0, 1025, 205):
        lines = [
            LineRecord(index, Outcome.SUCCEEDED, b"a", 0, usage, "m", Answered(cost_nanos, 1, 1))
            for index in range(first, first + 205)
        ]
        assert state.run(record(shard, lines)) == 205
    assert counts(state, shard) == {"s": 1025, "f": 0, "c": 0, "e": 0}
    assert state.run(shards.seal(shard, 1025))


def test_a_record_is_kept_to_the_byte(state: BlockingState) -> None:
    shard, content = opened(state, 1), bytes(range(256)) + "ключ\u2028".encode()
    state.run(record(shard, [LineRecord(0, Outcome.FAILED, content)]))
    assert state.run(shards.outcomes(shard, [0])) == [b"f" + content]


def test_outcomes_come_in_the_order_asked_for(state: BlockingState) -> None:
    shard = opened(state, 12)
    state.run(record(shard, [LineRecord(i, Outcome.SUCCEEDED, b"%d" % i) for i in range(11)]))
    assert state.run(shards.outcomes(shard, [10, 2, 11])) == [b"s10", b"s2", None]


@pytest.mark.parametrize("lines", [(1,), (1, 1)])
def test_records_after_the_seal_are_dropped_and_their_answers_counted_as_late(
    state: BlockingState, lines: tuple[int, ...]
) -> None:
    shard = opened(state, *lines)
    state.run(record(shard, succeeded(0)))
    state.run(shards.seal(shard, 0))
    before = contents(state)
    records = [LineRecord(0, outcome, b"{}", 3, Usage(1, 1, 1, 1, 1)) for outcome in Outcome]
    assert state.run(record(shard, records)) == 0
    assert late(state, shard.batch_id) == len(ANSWERED)
    forget_late(state, shard)
    assert contents(state) == before


def test_the_same_record_again_is_not_late(state: BlockingState) -> None:
    shard = opened(state, 2)
    for recorded in (2, 0):
        assert state.run(record(shard, succeeded(0, 1))) == recorded
    assert late(state, shard.batch_id) == 0


def test_nothing_is_recorded_of_a_batch_that_is_gone(state: BlockingState) -> None:
    shard = opened(state, 1)
    state.run(Call(("FLUSHALL",), bool))
    assert state.run(record(shard, succeeded(0))) == 0
    assert key_names(state) == set()
