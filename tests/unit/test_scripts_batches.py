from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.contract import BatchProblem, Usage, problems_to_json
from batchord.lifecycle import NEXT, Outcome, Status, to
from batchord.state import batches, keys, shards
from batchord.state.batches import ShardCounts
from batchord.state.calls import Argument, Call
from batchord.state.shards import LineRecord
from tests.unit.fake_state import (
    CREATED_AT,
    DEADLINE,
    WIDE,
    batch_object,
    contents,
    created,
    fields,
    key_names,
    move,
    opened,
    record,
    record_of,
    started,
    succeeded,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState

NOW = 1_500.75
TERMINAL = [status for status in Status if status.is_terminal]
TARGETS = [status for status in Status if status is not Status.VALIDATING]


def test_a_batch_is_created_once(state: BlockingState) -> None:
    batch = batch_object()
    assert state.run(batches.create(batch))
    assert not state.run(batches.create(batch.model_copy(update={"endpoint": "/v1/embeddings"})))
    assert record_of(state, batch.id).batch == batch


@pytest.mark.parametrize("metadata", [None, {}, {"who": "Zoë 😀", "": ""}])
def test_a_batch_reads_back_as_it_was_created(state: BlockingState, metadata: dict[str, str] | None) -> None:
    batch = batch_object(metadata=metadata, endpoint="")
    state.run(batches.create(batch))
    record = record_of(state, batch.id)
    assert record.batch == batch
    assert record.shards == {}
    assert (record.recorded, record.retries, record.started_ms, record.ended_ms) == (0, 0, 0, 0)


def test_a_batch_that_is_not_there_reads_as_none(state: BlockingState) -> None:
    assert state.run(batches.read("batch_none")) is None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", Status)
def test_a_batch_moves_only_as_the_table_allows(state: BlockingState, source: Status, target: Status) -> None:
    batch_id = created(state, source)
    before = fields(state, keys.batch(batch_id))
    moved = state.run(batches.transition(batch_id, to(target), NOW, {"output_file_id": "file-out"}))
    assert moved is (target in NEXT[source])
    change = {"status": target, f"{target}_at": "1500", "output_file_id": "file-out"} if moved else {}
    assert fields(state, keys.batch(batch_id)) == before | change


def test_a_batch_that_is_not_there_is_not_made_by_moving_it(state: BlockingState) -> None:
    assert not state.run(batches.transition("batch_none", to(Status.CANCELLING), NOW, {"errors": "[]"}))
    assert key_names(state) == set()


@pytest.mark.parametrize("first", [Status.COMPLETED, Status.EXPIRED, Status.CANCELLING])
@pytest.mark.parametrize("second", [Status.COMPLETED, Status.EXPIRED])
def test_of_two_movers_one_wins(state: BlockingState, first: Status, second: Status) -> None:
    batch_id = created(state, Status.FINALIZING)
    calls = [batches.transition(batch_id, to(target), NOW, {"output_file_id": target}) for target in (first, second)]
    assert state.run_all(calls) == [True, False]
    hash_fields = fields(state, keys.batch(batch_id))
    assert (hash_fields["status"], hash_fields["output_file_id"]) == (first, first)


@pytest.mark.parametrize("terminal", TERMINAL)
def test_nothing_is_written_after_a_terminal_status(state: BlockingState, terminal: Status) -> None:
    shard = opened(state, 1, 1)
    state.run(record(shard, succeeded(0)))
    state.run(shards.seal(shard, 0))
    move(state, shard.batch_id, terminal)
    before = contents(state)
    for target in TARGETS:
        assert not state.run(batches.transition(shard.batch_id, to(target), NOW, {"errors": "[]"}))
    assert not state.run(batches.create(batch_object(id=shard.batch_id)))
    assert not state.run(batches.start(shard.batch_id, NOW, {"total": 9}, {"local": [9]}))
    assert state.run(shards.open_next(shard.batch_id, "local", WIDE)) is None
    assert state.run(record(shard, [LineRecord(0, Outcome.CANCELLED, b"{}")])) == 0
    assert not state.run(shards.seal(shard, 0))
    assert contents(state) == before


def test_starting_sets_totals_shards_and_status_together(state: BlockingState) -> None:
    batch_id = created(state)
    start: dict[str, Argument] = {"total": 6, "model": "llama", "endpoint": "/v1/embeddings", "started_ms": 1_500_750}
    assert state.run(batches.start(batch_id, NOW, start, {"local": [2, 3], "other": [1]}))
    record = record_of(state, batch_id)
    assert (record.batch.status, record.batch.in_progress_at) == (Status.IN_PROGRESS, 1500)
    assert record.batch.request_counts.total == 6
    assert (record.batch.model, record.batch.endpoint) == ("llama", "/v1/embeddings")
    assert record.shards == {"local": ShardCounts(2, 0, 0), "other": ShardCounts(1, 0, 0)}
    assert record.started_ms == 1_500_750


def test_a_batch_of_many_models_reads_as_one_of_none(state: BlockingState) -> None:
    batch_id = created(state)
    state.run(batches.start(batch_id, NOW, {"model": ""}, {"local": [1]}))
    assert record_of(state, batch_id).batch.model is None


def test_a_batch_without_any_line_starts(state: BlockingState) -> None:
    batch_id = created(state)
    assert state.run(batches.start(batch_id, NOW, {}, {}))
    assert record_of(state, batch_id).batch.status is Status.IN_PROGRESS
    assert key_names(state) == {keys.batch(batch_id)}


def test_a_batch_starts_with_more_shards_than_lua_unpacks_at_once(state: BlockingState) -> None:
    batch_id = started(state, {"local": [7] * 9_000})
    assert record_of(state, batch_id).shards["local"].planned == 9_000
    assert state.run(Call(("LLEN", keys.lines(batch_id, "local")), int)) == 9_000


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.VALIDATING])
def test_starting_changes_nothing_once_planning_is_over(state: BlockingState, status: Status) -> None:
    batch_id = created(state, status)
    before = contents(state)
    assert not state.run(batches.start(batch_id, NOW, {"total": 2}, {"local": [2]}))
    assert contents(state) == before


def test_starting_twice_keeps_the_first_plan(state: BlockingState) -> None:
    batch_id = started(state, {"local": [2, 3]})
    before = contents(state)
    assert not state.run(batches.start(batch_id, NOW, {"total": 9}, {"local": [9], "other": [1]}))
    assert contents(state) == before


def test_a_batch_that_is_not_there_is_not_made_by_starting_it(state: BlockingState) -> None:
    assert not state.run(batches.start("batch_none", NOW, {"total": 2}, {"local": [2]}))
    assert key_names(state) == set()


def test_the_reasons_of_a_refusal_are_read_as_they_were_written(state: BlockingState) -> None:
    problem = BatchProblem(code="invalid_json_line", message="Line 3, “é”: no JSON", line=3, summary="line 3")
    batch_id = created(state)
    state.run(batches.transition(batch_id, to(Status.FAILED), NOW, {"errors": problems_to_json([problem])}))
    assert record_of(state, batch_id).batch.errors == (problem,)


def test_a_record_counts_the_lines_that_were_cancelled_or_ran_out_of_time(state: BlockingState) -> None:
    shard = opened(state, 5)
    outcomes = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.EXPIRED]
    usage = Usage(1, 2, 3, 4, 5)
    state.run(record(shard, [LineRecord(i, o, b"{}", i, usage) for i, o in enumerate(outcomes)]))
    seen = record_of(state, shard.batch_id)
    counts = seen.batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (5, 1, 1)
    assert (seen.cancelled_lines, seen.expired_lines, seen.recorded, seen.retries) == (1, 1, 4, 6)
    assert seen.batch.usage == Usage(4, 8, 12, 16, 20)


@pytest.mark.parametrize(("now", "is_past"), [(DEADLINE - 0.01, False), (DEADLINE, True), (DEADLINE + 1, True)])
def test_the_deadline_is_the_first_moment_that_is_too_late(state: BlockingState, now: float, *, is_past: bool) -> None:
    assert record_of(state, created(state)).is_past_deadline(now) is is_past


def test_the_list_of_active_batches_is_oldest_first_and_names_each_once(state: BlockingState) -> None:
    for batch_id, at in [("batch_b", 2.5), ("batch_a", 3), ("batch_c", 1), ("batch_b", 2.5)]:
        state.run(batches.activate(batch_id, at))
    assert state.run(batches.active()) == [("batch_c", 1), ("batch_b", 2.5), ("batch_a", 3)]


def test_an_ended_batch_leaves_the_list_and_the_list_leaves_redis(state: BlockingState) -> None:
    state.run(batches.activate("batch_a", CREATED_AT))
    assert [state.run(batches.deactivate("batch_a", CREATED_AT)) for _ in range(2)] == [True, False]
    assert state.run(batches.active()) == []
    assert key_names(state) == set()


def test_a_batch_that_was_put_on_the_list_again_stays_there(state: BlockingState) -> None:
    state.run(batches.activate("batch_a", 1_000.123456))
    since = state.run(batches.active_since("batch_a"))
    assert since == 1_000.123456
    state.run(batches.activate("batch_a", 1_000.123457))
    assert not state.run(batches.deactivate("batch_a", since))
    assert state.run(batches.active_since("batch_a")) == 1_000.123457
    assert state.run(batches.active_since("batch_b")) is None
