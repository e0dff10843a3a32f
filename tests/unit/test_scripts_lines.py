from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from batchord.contract import Usage
from batchord.lifecycle import Outcome, Status
from batchord.state import keys, shards
from batchord.state.shards import LineRecord, Verdict
from tests.unit.fake_state import (
    DEADLINE,
    FakeState,
    contents,
    fields,
    move,
    opened,
    record_of,
    succeeded,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState
    from batchord.state.keys import Shard

NOW = 1_500.75
CLAIM_S = 30


@pytest.fixture
def state() -> BlockingState:
    return FakeState()


def begin(state: BlockingState, shard: Shard, worker: str, *indices: int, now: float = NOW) -> list[Verdict]:
    return state.run(shards.begin(shard, worker, now, now + CLAIM_S, indices))


def claims(state: BlockingState, shard: Shard) -> dict[str, str]:
    return fields(state, keys.claims(shard))


def counts(state: BlockingState, shard: Shard) -> dict[Outcome, int]:
    record = record_of(state, shard.batch_id)
    requests = record.batch.request_counts
    numbers = (requests.completed, requests.failed, record.cancelled_lines, record.expired_lines)
    return dict(zip(Outcome, numbers, strict=True))


def test_a_line_that_nobody_sends_is_claimed_by_who_asks(state: BlockingState) -> None:
    shard = opened(state, 3)
    assert begin(state, shard, "w1", 0, 2) == [Verdict.SEND, Verdict.SEND]
    assert claims(state, shard) == {"0": "w1", "2": "w1"}


def test_a_line_that_a_living_worker_sends_is_not_given_to_another(state: BlockingState) -> None:
    shard = opened(state, 2)
    begin(state, shard, "w1", 0)
    assert begin(state, shard, "w2", 0, 1, now=NOW + CLAIM_S - 0.01) == [Verdict.CLAIMED, Verdict.SEND]
    assert claims(state, shard) == {"0": "w1", "1": "w2"}


def test_a_line_named_twice_in_one_call_is_this_workers_both_times(state: BlockingState) -> None:
    shard = opened(state, 1)
    assert begin(state, shard, "w1", 0, 0) == [Verdict.SEND, Verdict.SEND]
    assert claims(state, shard) == {"0": "w1"}


def test_the_claims_of_a_dead_worker_are_taken_over_when_they_run_out(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "dead", 0)
    assert begin(state, shard, "w2", 0, now=NOW + CLAIM_S) == [Verdict.SEND]
    assert claims(state, shard) == {"0": "w2"}
    assert begin(state, shard, "dead", 0, now=NOW + CLAIM_S) == [Verdict.CLAIMED]


def test_a_worker_that_asks_again_keeps_its_claim_for_longer(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    assert begin(state, shard, "w1", 0, now=NOW + 20) == [Verdict.SEND]
    assert begin(state, shard, "w2", 0, now=NOW + CLAIM_S) == [Verdict.CLAIMED]


def test_renewing_prolongs_all_claims_of_this_worker_and_no_others(state: BlockingState) -> None:
    shard = opened(state, 3)
    begin(state, shard, "w1", 0, 1)
    begin(state, shard, "w2", 2)
    assert state.run(shards.renew(shard, "w1", NOW + 90))
    assert begin(state, shard, "w3", 0, 1, 2, now=NOW + 60) == [Verdict.CLAIMED, Verdict.CLAIMED, Verdict.SEND]


@pytest.mark.parametrize("lines", [(1,), (1, 1)])
def test_renewing_in_a_sealed_shard_leaves_no_trace(state: BlockingState, lines: tuple[int, ...]) -> None:
    shard = opened(state, *lines)
    state.run(shards.record(shard, NOW, succeeded(0)))
    state.run(shards.seal(shard, 0))
    before = contents(state)
    assert not state.run(shards.renew(shard, "w1", NOW + 60))
    assert contents(state) == before


def test_a_line_with_an_outcome_is_not_sent_again(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(shards.record(shard, NOW, succeeded(0)))
    assert begin(state, shard, "w1", 0, 1) == [Verdict.RECORDED, Verdict.SEND]
    assert claims(state, shard) == {"1": "w1"}


def test_a_line_of_a_shard_that_is_not_open_is_not_sent_and_leaves_no_claim(state: BlockingState) -> None:
    shard = opened(state, 1, 1)
    state.run(shards.record(shard, NOW, succeeded(0)))
    state.run(shards.seal(shard, 0))
    before = contents(state)
    for number in (0, 1):
        assert begin(state, shard._replace(number=number), "w1", 0) == [Verdict.RECORDED]
    assert contents(state) == before


@pytest.mark.parametrize(
    ("status", "now", "verdict"),
    [
        (Status.IN_PROGRESS, DEADLINE - 0.01, Verdict.SEND),
        (Status.IN_PROGRESS, DEADLINE, Verdict.EXPIRED),
        (Status.FINALIZING, NOW, Verdict.EXPIRED),
        (Status.CANCELLING, NOW, Verdict.CANCELLED),
        (Status.CANCELLING, DEADLINE, Verdict.CANCELLED),
    ],
)
def test_a_line_is_sent_only_while_its_batch_runs_and_has_time(
    state: BlockingState, status: Status, now: float, verdict: Verdict
) -> None:
    shard = opened(state, 1)
    move(state, shard.batch_id, status)
    assert begin(state, shard, "w1", 0, now=now) == [verdict]
    assert claims(state, shard) == ({"0": "w1"} if verdict is Verdict.SEND else {})


@pytest.mark.parametrize(("status", "verdict"), [(Status.CANCELLING, "cancelled"), (Status.FINALIZING, "expired")])
def test_its_own_worker_learns_that_a_line_is_not_to_be_sent_again(
    state: BlockingState, status: Status, verdict: str
) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    move(state, shard.batch_id, status)
    assert begin(state, shard, "w2", 0) == [Verdict.CLAIMED]
    assert begin(state, shard, "w1", 0) == [Verdict(verdict)]


@pytest.mark.parametrize(("first", "second"), list(product(Outcome, Outcome)))
def test_a_line_recorded_twice_counts_once_whatever_the_second_says(
    state: BlockingState, first: Outcome, second: Outcome
) -> None:
    shard = opened(state, 2)
    state.run(shards.record(shard, NOW, [LineRecord(0, first, b'{"n":1}', 2, Usage(10, 5, 20, 7, 30))]))
    before = contents(state)
    assert state.run(shards.record(shard, NOW + 9, [LineRecord(0, second, b'{"n":2}', 9, Usage(9, 9, 9, 9, 9))])) == 0
    assert contents(state) == before
    assert counts(state, shard) == {outcome: int(outcome is first) for outcome in Outcome}
    record = record_of(state, shard.batch_id)
    assert (record.batch.usage, record.retries) == (Usage(10, 5, 20, 7, 30), 2)
    assert state.run(shards.outcomes(shard, [0, 1])) == [first.encode() + b'{"n":1}', None]


def test_a_line_twice_in_one_call_counts_once(state: BlockingState) -> None:
    shard = opened(state, 2)
    lines = [LineRecord(0, Outcome.FAILED, b"a", 1), LineRecord(1, Outcome.SUCCEEDED, b"b"), *succeeded(0)]
    assert state.run(shards.record(shard, NOW, lines)) == 2
    assert counts(state, shard) == {"s": 1, "f": 1, "c": 0, "e": 0}
    assert state.run(shards.seal(shard, 0))


def test_a_call_that_repeats_some_lines_records_the_others(state: BlockingState) -> None:
    shard = opened(state, 4)
    state.run(shards.record(shard, NOW, succeeded(1, 3)))
    assert state.run(shards.record(shard, NOW, succeeded(0, 1, 2, 3))) == 2
    assert record_of(state, shard.batch_id).batch.request_counts.completed == 4


def test_the_same_index_of_two_shards_is_two_lines(state: BlockingState) -> None:
    shard = opened(state, 1, 1)
    state.run(shards.open_next(shard.batch_id, "local", NOW, 10))
    for number in (0, 1):
        assert state.run(shards.record(shard._replace(number=number), NOW, succeeded(0))) == 1
    assert record_of(state, shard.batch_id).recorded == 2


def test_nothing_to_record_changes_nothing(state: BlockingState) -> None:
    shard = opened(state, 1)
    before = contents(state)
    assert state.run(shards.record(shard, NOW + 9, [])) == 0
    assert contents(state) == before


def test_a_record_is_kept_to_the_byte(state: BlockingState) -> None:
    shard, content = opened(state, 1), bytes(range(256)) + "ключ\u2028".encode()
    state.run(shards.record(shard, NOW, [LineRecord(0, Outcome.FAILED, content)]))
    assert state.run(shards.outcomes(shard, [0])) == [b"f" + content]


def test_outcomes_come_in_the_order_asked_for(state: BlockingState) -> None:
    shard = opened(state, 12)
    state.run(shards.record(shard, NOW, [LineRecord(i, Outcome.SUCCEEDED, b"%d" % i) for i in range(11)]))
    assert state.run(shards.outcomes(shard, [10, 2, 11])) == [b"s10", b"s2", None]


@pytest.mark.parametrize("lines", [(1,), (1, 1)])
def test_a_record_after_the_seal_is_dropped_and_leaves_no_trace(state: BlockingState, lines: tuple[int, ...]) -> None:
    shard = opened(state, *lines)
    state.run(shards.record(shard, NOW, succeeded(0)))
    state.run(shards.seal(shard, 0))
    before = contents(state)
    assert state.run(shards.record(shard, NOW, [LineRecord(0, Outcome.FAILED, b"{}", 3, Usage(1, 1, 1, 1, 1))])) == 0
    assert contents(state) == before


def test_a_record_ends_the_claim_whoever_holds_it(state: BlockingState) -> None:
    shard = opened(state, 2)
    begin(state, shard, "slow", 0, 1)
    begin(state, shard, "w2", 0, now=NOW + CLAIM_S)
    state.run(shards.record(shard, NOW, succeeded(0)))
    assert claims(state, shard) == {"1": "slow"}


def test_a_worker_releases_only_its_own_claims(state: BlockingState) -> None:
    shard = opened(state, 4)
    begin(state, shard, "w1", 0, 1)
    begin(state, shard, "w2", 2)
    assert state.run(shards.release(shard, "w1", [0, 2, 3])) == 1
    assert claims(state, shard) == {"1": "w1", "2": "w2"}
    assert begin(state, shard, "w3", 0, 1, 2) == [Verdict.SEND, Verdict.CLAIMED, Verdict.CLAIMED]


def test_a_claim_released_after_it_was_taken_over_stays(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "slow", 0)
    begin(state, shard, "w2", 0, now=NOW + CLAIM_S)
    assert state.run(shards.release(shard, "slow", [0])) == 0
    assert claims(state, shard) == {"0": "w2"}


def test_missing_are_the_lines_without_outcome_that_no_living_worker_sends(state: BlockingState) -> None:
    shard = opened(state, 12)
    state.run(shards.record(shard, NOW, succeeded(5, 10)))
    begin(state, shard, "dead", 1, 2)
    begin(state, shard, "w2", 3, 11, now=NOW + 10)
    assert state.run(shards.missing(shard, NOW + CLAIM_S - 0.01)) == [0, 4, 6, 7, 8, 9]
    assert state.run(shards.missing(shard, NOW + CLAIM_S)) == [0, 1, 2, 4, 6, 7, 8, 9]
    assert state.run(shards.missing(shard, NOW + CLAIM_S + 10)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 11]


def test_nothing_is_missing_of_a_shard_that_is_complete_or_not_open(state: BlockingState) -> None:
    shard = opened(state, 2, 5)
    state.run(shards.record(shard, NOW, succeeded(0, 1)))
    assert state.run(shards.missing(shard, NOW)) == []
    state.run(shards.seal(shard, 0))
    assert [state.run(shards.missing(shard._replace(number=n), NOW)) for n in (0, 1)] == [[], []]
