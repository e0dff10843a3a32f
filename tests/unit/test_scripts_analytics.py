from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.contract import NO_USAGE, Usage
from batchord.histogram import bucket_of
from batchord.lifecycle import Outcome
from batchord.state import analytics, keys, shards
from batchord.state.shards import Answered, LineRecord
from tests.unit.fake_state import fields, opened, record, record_of, succeeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.state.analytics import Tally
    from batchord.state.connection import BlockingState
    from batchord.state.keys import Shard

NOW = 1_500.0


def answer(index: int, model: str = "m", cost: int | None = 7, latency_ms: float = 100) -> LineRecord:
    usage = Usage(10, 4, 20, 5, 30)
    answered = Answered(cost, latency_ms, latency_ms / 2)
    return LineRecord(index, Outcome.SUCCEEDED, b"{}", usage=usage, model=model, answered=answered)


def tallies(state: BlockingState, shard: Shard) -> Mapping[tuple[str, str], Tally]:
    return state.run(analytics.read(shard.batch_id))


def test_what_answers_took_is_counted_by_model(state: BlockingState) -> None:
    shard = opened(state, 4)
    records = [answer(0), answer(1, latency_ms=3_000), answer(2, "other"), answer(3, cost=None)]
    state.run(record(shard, records))
    found = tallies(state, shard)
    assert set(found) == {("local", "m"), ("local", "other")}
    one = found["local", "m"]
    assert dict(one.counts) == {
        "seen": 1,
        "completed": 3,
        "input_tokens": 30,
        "cached_tokens": 12,
        "output_tokens": 60,
        "reasoning_tokens": 15,
        "total_tokens": 90,
        "cost": 14,
        "unpriced": 1,
    }
    assert one.latencies == {bucket_of(100): 2, bucket_of(3_000): 1}
    assert one.ttfbs == {bucket_of(50): 2, bucket_of(1_500): 1}


@pytest.mark.parametrize(
    ("outcome", "counter"),
    [
        (Outcome.SUCCEEDED, "completed"),
        (Outcome.FAILED, "failed"),
        (Outcome.CANCELLED, "cancelled"),
        (Outcome.EXPIRED, "expired"),
    ],
)
def test_a_line_without_an_answer_is_counted_by_its_outcome_alone(
    state: BlockingState, outcome: Outcome, counter: str
) -> None:
    shard = opened(state, 1)
    state.run(record(shard, [LineRecord(0, outcome, b"{}", 2, NO_USAGE, "m")]))
    tally = tallies(state, shard)["local", "m"]
    assert dict(tally.counts) == {"seen": 1, counter: 1}
    assert not tally.latencies
    assert not tally.ttfbs


def test_a_line_recorded_twice_counts_once(state: BlockingState) -> None:
    shard = opened(state, 3)
    state.run(record(shard, [answer(0), answer(1), answer(0, "late", 99)]))
    state.run(record(shard, [answer(1, "late", 99), answer(2)]))
    found = tallies(state, shard)
    assert set(found) == {("local", "m")}
    assert (found["local", "m"].counts["completed"], found["local", "m"].counts["cost"]) == (3, 21)


def test_the_batchs_usage_is_the_sum_of_its_models(state: BlockingState) -> None:
    shard = opened(state, 30)
    for first in range(0, 30, 10):
        state.run(record(shard, [answer(first + n, f"m{n % 4}") for n in range(10)]))
    found = tallies(state, shard).values()
    usage = record_of(state, shard.batch_id).batch.usage
    assert sum(tally.counts["input_tokens"] for tally in found) == usage.input_tokens == 300
    assert sum(tally.counts["total_tokens"] for tally in found) == usage.total_tokens == 900


@pytest.mark.parametrize("model", ["a|b", "|", "||x||", "meta/llama-3:8b", "модель", " ", "m|completed", "latency:3"])
def test_a_model_may_have_any_name(state: BlockingState, model: str) -> None:
    shard = opened(state, 2)
    state.run(record(shard, [answer(0, model), answer(1, "plain")]))
    found = tallies(state, shard)
    assert set(found) == {("local", model), ("local", "plain")}
    assert found["local", model].counts["completed"] == 1


def test_models_past_the_bound_are_counted_together(state: BlockingState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_ANALYTICS_FIELDS", 20)
    shard = opened(state, 100)
    state.run(record(shard, [answer(0, "first"), answer(1, "second")]))
    for index in range(2, 100):
        state.run(record(shard, [answer(index, f"new-{index}"), answer(0, "first")]))
    found = tallies(state, shard)
    assert set(found) == {("local", "first"), ("local", "second"), ("local", "")}
    assert found["local", ""].counts["completed"] == 98
    assert sum(tally.counts["cost"] for tally in found.values()) == 700
    assert len(fields(state, keys.analytics(shard.batch_id))) < 40


def test_a_known_model_is_counted_past_the_bound(state: BlockingState, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = opened(state, 2)
    state.run(record(shard, [answer(0)]))
    monkeypatch.setattr(shards, "_ANALYTICS_FIELDS", 1)
    state.run(record(shard, [answer(1)]))
    assert tallies(state, shard)["local", "m"].counts["completed"] == 2


def test_a_record_after_the_seal_counts_nothing(state: BlockingState) -> None:
    shard = opened(state, 1)
    state.run(record(shard, succeeded(0)))
    state.run(shards.seal(shard, 1))
    before = tallies(state, shard)
    state.run(record(shard, [answer(0, "late", 99)]))
    assert tallies(state, shard) == before


def test_costs_are_exact_past_what_a_float_of_dollars_holds(state: BlockingState) -> None:
    shard, cost = opened(state, 3), 2**52 + 1
    for index in range(3):
        state.run(record(shard, [answer(index, cost=cost)]))
    assert tallies(state, shard)["local", "m"].counts["cost"] == 3 * cost


def test_a_batch_that_has_recorded_nothing_has_no_tallies(state: BlockingState) -> None:
    assert tallies(state, opened(state, 1)) == {}
