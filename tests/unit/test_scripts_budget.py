"""A batch's budget in the scripts: what its answers cost, and what that means for the next line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchord.creation import max_cost_nanos
from batchord.errors import InvalidRequestError
from batchord.lifecycle import Outcome, Status
from batchord.state import batches, keys, rounds, shards
from batchord.state.keys import Shard
from batchord.state.shards import Answered, LineRecord, Verdict
from tests.unit.fake_state import CREATED_AT, WIDE, batch_object, begin, fields, move, record, record_of

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState


def budgeted(state: BlockingState, lines: int, budget: int | None = 100) -> Shard:
    """Give the open shard of a new batch with a budget of so many nano-dollars."""
    batch = batch_object(max_cost_nanos=budget)
    state.run(batches.create(batch))
    state.run(batches.start(batch.id, CREATED_AT, {"total": lines}, {"local": [lines]}))
    assert state.run(shards.open_next(batch.id, "local", WIDE)) == (0, lines)
    return Shard(batch.id, "local", 0)


def answered(index: int, cost: int | None) -> LineRecord:
    return LineRecord(index, Outcome.SUCCEEDED, b"{}", model="m", answered=Answered(cost, 1.0, 0.5))


def test_a_line_is_sent_until_the_answers_have_cost_the_budget(state: BlockingState) -> None:
    shard = budgeted(state, 4)
    state.run(record(shard, [answered(0, 99)]))
    assert begin(state, shard, "w", 1) == [Verdict.SEND]
    assert not record_of(state, shard.batch_id).is_over_budget
    state.run(record(shard, [answered(1, 1)]))
    assert record_of(state, shard.batch_id).is_over_budget
    assert begin(state, shard, "w", 0, 2, 3) == [Verdict.RECORDED, Verdict.OVER_BUDGET, Verdict.OVER_BUDGET]


def test_a_line_in_flight_is_not_sent_once_more_when_the_budget_is_reached(state: BlockingState) -> None:
    shard = budgeted(state, 2)
    assert begin(state, shard, "w", 0, 1) == [Verdict.SEND, Verdict.SEND]
    state.run(record(shard, [answered(0, 100)]))
    assert begin(state, shard, "w", 1) == [Verdict.OVER_BUDGET]
    assert begin(state, shard, "v", 1) == [Verdict.CLAIMED]


def test_an_answer_recorded_twice_costs_once_and_one_of_unknown_price_nothing(state: BlockingState) -> None:
    shard = budgeted(state, 3)
    state.run_all([record(shard, [answered(0, 7)])] * 2 + [record(shard, [answered(0, 8), answered(1, None)])])
    assert record_of(state, shard.batch_id).cost_nanos == 7


def test_a_batch_without_a_budget_may_cost_anything(state: BlockingState) -> None:
    shard = budgeted(state, 2, None)
    state.run(record(shard, [answered(0, 10**15)]))
    assert begin(state, shard, "w", 1) == [Verdict.SEND]
    assert "max_cost" not in fields(state, keys.batch(shard.batch_id))


@pytest.mark.parametrize("status", [Status.CANCELLING, Status.FINALIZING])
def test_a_stopped_batch_is_rather_stopped_than_over_its_budget(state: BlockingState, status: Status) -> None:
    shard = budgeted(state, 2)
    state.run(record(shard, [answered(0, 100)]))
    move(state, shard.batch_id, status)
    assert begin(state, shard, "w", 1)[0] in {Verdict.CANCELLED, Verdict.EXPIRED}


def test_a_retry_has_its_own_budget_and_shows_the_former_one_when_it_is_taken_back(state: BlockingState) -> None:
    shard = budgeted(state, 1)
    state.run(record(shard, [answered(0, 60)]))
    move(state, shard.batch_id, Status.COMPLETED)
    assert state.run(rounds.retry(record_of(state, shard.batch_id), 9_000, "selection", 200))
    retried = record_of(state, shard.batch_id)
    assert (retried.batch.max_cost_nanos, retried.cost_nanos) == (200, 60)
    assert state.run(rounds.withdraw(shard.batch_id, 1))
    assert record_of(state, shard.batch_id).batch.max_cost_nanos == 100


@pytest.mark.parametrize(
    ("max_cost", "nanos"),
    [(None, None), (1, 1_000_000_000), (0.1, 100_000_000), (2.675, 2_675_000_000), (1e-12, 1), (1e9, 10**18)],
)
def test_dollars_become_whole_nano_dollars(max_cost: float | None, nanos: int | None) -> None:
    assert max_cost_nanos(max_cost) == nanos


@pytest.mark.parametrize("max_cost", [0, -1, 0.0, float("nan"), float("inf"), 10**400, 1.1e9, True, "5"])
def test_what_is_no_amount_is_refused(max_cost: Any) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid 'max_cost': expected dollars above 0") as caught:
        max_cost_nanos(max_cost)
    assert (caught.value.param, caught.value.code) == ("max_cost", "invalid_value")
