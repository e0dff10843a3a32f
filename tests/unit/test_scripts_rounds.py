"""A batch's further rounds: a retry begins with nothing of the round before it, and what is late harms no later one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.contract import produced_file_id
from batchord.lifecycle import Outcome, Status, to
from batchord.state import batches, keys, retired, rounds, shards
from batchord.state.batches import ShardCounts
from batchord.state.calls import Argument, Call
from batchord.state.keys import ROUND_SHARDS, Shard
from batchord.state.shards import LineRecord
from tests.unit.fake_state import (
    CREATED_AT,
    DEADLINE,
    WIDE,
    begin,
    contents,
    created,
    fields,
    key_names,
    late,
    move,
    record,
    record_of,
    started,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState

NOW = 1_500.75
NEW_DEADLINE = 4_100_000_000
RETRIABLE = [Status.COMPLETED, Status.EXPIRED, Status.CANCELLED]


def run_shard(state: BlockingState, shard: Shard, outcomes: str) -> None:
    """Open a provider's next shard, record an outcome for each line, and seal it."""
    opened = state.run(shards.open_next(shard.batch_id, shard.provider, WIDE))
    assert opened == (shard.number, len(outcomes))
    records = [LineRecord(index, Outcome(letter), b"{}") for index, letter in enumerate(outcomes)]
    assert state.run(record(shard, records)) == len(outcomes)
    assert state.run(shards.seal(shard, outcomes.count("s")))


def ended(state: BlockingState, status: Status = Status.COMPLETED) -> str:
    """Give a batch that ended with a success and a failure of one provider, and one of each of another."""
    batch_id = started(state, {"a": [2], "b": [2]})
    run_shard(state, Shard(batch_id, "a", 0), "sf")
    run_shard(state, Shard(batch_id, "b", 0), "sf")
    assert state.run(batches.transition(batch_id, to(Status.FINALIZING), NOW))
    produced: dict[str, Argument] = {"produced_round": 0, "output_file_id": "file-o", "error_file_id": "file-e"}
    move(state, batch_id, Status.CANCELLING if status is Status.CANCELLED else Status.FINALIZING)
    assert state.run(batches.transition(batch_id, to(status), NOW, {**produced, "ended_ms": 1_500_750}))
    return batch_id


def retry(state: BlockingState, batch_id: str, selection: str = "chosen") -> bool:
    return state.run(rounds.retry(record_of(state, batch_id), NEW_DEADLINE, selection))


def start(state: BlockingState, batch_id: str, round_: int = 1) -> bool:
    kept: dict[str, Argument] = {"completed": 2, "failed": 0, "sealed_succeeded": 2, "sealed_others": 0}
    return state.run(batches.start(batch_id, NOW, kept, {"b": [2]}, round_))


@pytest.mark.parametrize("status", Status)
def test_a_batch_is_retried_only_when_it_has_ended_with_results(state: BlockingState, status: Status) -> None:
    batch_id = created(state, status)
    before = contents(state)
    assert retry(state, batch_id) is (status in RETRIABLE)
    assert (contents(state) != before) is (status in RETRIABLE)


@pytest.mark.parametrize("status", RETRIABLE)
def test_a_retry_shows_nothing_of_the_end_before_it(state: BlockingState, status: Status) -> None:
    batch_id = ended(state, status)
    assert retry(state, batch_id)
    record = record_of(state, batch_id)
    batch = record.batch
    assert (batch.status, batch.round, batch.expires_at) == (Status.VALIDATING, 1, NEW_DEADLINE)
    stamps = (batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expired_at, batch.cancelled_at)
    assert stamps == (None,) * 5
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert (record.files, record.produced_round) == ({"output": "file-o", "errors": "file-e"}, 0)
    assert (record.shards, record.selection, record.has_started) == ({}, "chosen", False)
    assert {name for name in key_names(state) if ":lines:" in name} == set()


def test_a_retry_whose_answer_was_lost_is_the_same_retry(state: BlockingState) -> None:
    batch_id = ended(state)
    call = rounds.retry(record_of(state, batch_id), NEW_DEADLINE, "chosen")
    assert state.run(call)
    before = contents(state)
    assert state.run(call)
    assert contents(state) == before


def test_of_two_retries_at_once_one_wins(state: BlockingState) -> None:
    record = record_of(state, ended(state))
    calls = [rounds.retry(record, NEW_DEADLINE, selection) for selection in ("one", "two")]
    assert state.run_all(calls) == [True, False]
    assert record_of(state, record.batch.id).selection == "one"


def test_a_retry_of_an_earlier_round_changes_nothing(state: BlockingState) -> None:
    batch_id = ended(state)
    stale = rounds.retry(record_of(state, batch_id), NEW_DEADLINE, "stale")
    retry(state, batch_id)
    start(state, batch_id)
    move(state, batch_id, Status.COMPLETED)
    before = contents(state)
    assert not state.run(stale)
    assert contents(state) == before


def test_a_round_counts_its_shards_and_lines_anew_on_top_of_what_was_kept(state: BlockingState) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    assert start(state, batch_id)
    first = ROUND_SHARDS
    assert record_of(state, batch_id).shards == {"b": ShardCounts(first + 1, first, 0, first)}
    run_shard(state, Shard(batch_id, "b", first), "sf")
    record = record_of(state, batch_id)
    counts = record.batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (4, 3, 1)
    assert record.shards == {"b": ShardCounts(first + 1, first + 1, 0, first)}
    assert state.run(shards.open_next(batch_id, "b", WIDE)) is None
    assert state.run(shards.open_next(batch_id, "a", WIDE)) is None


def test_a_running_batch_shows_a_file_as_soon_as_it_has_a_line(state: BlockingState) -> None:
    batch_id = started(state, {"a": [1, 1, 1]})

    def shown() -> tuple[str | None, str | None]:
        batch = record_of(state, batch_id).batch
        return batch.output_file_id, batch.error_file_id

    output, errors = produced_file_id(batch_id, "output"), produced_file_id(batch_id, "errors")
    assert shown() == (None, None)
    run_shard(state, Shard(batch_id, "a", 0), "f")
    assert shown() == (None, errors)
    run_shard(state, Shard(batch_id, "a", 1), "s")
    assert shown() == (output, errors)


def test_a_round_shows_what_it_kept_from_its_start(state: BlockingState) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    start(state, batch_id)
    batch = record_of(state, batch_id).batch
    assert (batch.output_file_id, batch.error_file_id) == (produced_file_id(batch_id, "output", 1), None)


@pytest.mark.parametrize("round_", [0, 2])
def test_a_plan_of_another_round_starts_nothing(state: BlockingState, round_: int) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    before = contents(state)
    assert not start(state, batch_id, round_)
    assert contents(state) == before


def test_a_move_that_means_an_earlier_round_changes_nothing(state: BlockingState) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    start(state, batch_id)
    before = contents(state)
    assert not state.run(batches.transition(batch_id, to(Status.FINALIZING), NOW, round_=0))
    assert contents(state) == before
    assert state.run(batches.transition(batch_id, to(Status.FINALIZING), NOW, round_=1))


@pytest.mark.parametrize("status", RETRIABLE)
def test_a_retry_taken_back_leaves_the_batch_as_it_had_ended(state: BlockingState, status: Status) -> None:
    batch_id = ended(state, status)
    before = record_of(state, batch_id).batch
    retry(state, batch_id)
    assert state.run(rounds.withdraw(batch_id, 1))
    assert record_of(state, batch_id).batch == before.model_copy(update={"round": 1})
    assert not state.run(rounds.withdraw(batch_id, 1))
    assert retry(state, batch_id, "chosen again")
    assert record_of(state, batch_id).batch.round == 2


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.VALIDATING])
def test_a_retry_that_is_under_way_is_not_taken_back(state: BlockingState, status: Status) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    move(state, batch_id, status)
    before = contents(state)
    assert not state.run(rounds.withdraw(batch_id, 1))
    assert contents(state) == before


def test_a_first_round_is_not_taken_back(state: BlockingState) -> None:
    batch_id = created(state)
    before = contents(state)
    assert not state.run(rounds.withdraw(batch_id, 0))
    assert contents(state) == before


def test_what_an_ended_round_needs_no_more_is_freed(state: BlockingState) -> None:
    batch_id = ended(state)
    record = record_of(state, batch_id)
    assert [state.run(rounds.free(record)) for _ in range(2)] == [True, True]
    assert not [name for name in key_names(state) if ":lines:" in name]


def test_nothing_is_freed_that_a_later_round_needs(state: BlockingState) -> None:
    batch_id = ended(state)
    ended_record = record_of(state, batch_id)
    retry(state, batch_id)
    start(state, batch_id)
    before = contents(state)
    assert not state.run(rounds.free(ended_record))
    move(state, batch_id, Status.COMPLETED)
    assert not state.run(rounds.free(ended_record))
    move(state, batch_id, Status.IN_PROGRESS)
    assert contents(state) == before


def test_a_late_message_of_an_earlier_round_finds_no_shard(state: BlockingState) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    start(state, batch_id)
    state.run(shards.open_next(batch_id, "b", WIDE))
    former = Shard(batch_id, "b", 0)
    before = contents(state)
    assert begin(state, former, "w", 0) == [shards.Verdict.RECORDED]
    assert not state.run(shards.seal(former, 0))
    assert contents(state) == before
    assert state.run(record(former, [LineRecord(0, Outcome.FAILED, b"{}")])) == 0
    assert late(state, batch_id) == 1
    state.run(Call(("HDEL", keys.batch(batch_id), "late"), int))
    assert contents(state) == before


def test_ended_batches_are_listed_by_when_they_are_removed(state: BlockingState) -> None:
    for batch_id, at in [("batch_b", 30), ("batch_a", 10), ("batch_c", 20), ("batch_b", 30)]:
        state.run(retired.note(batch_id, at))
    assert state.run(retired.due(20, 10)) == ["batch_a", "batch_c"]
    assert state.run(retired.due(20, 1)) == ["batch_a"]
    state.run(retired.drop("batch_a"))
    assert state.run(retired.due(DEADLINE, 10)) == ["batch_c", "batch_b"]


def test_the_hash_of_a_retried_batch_keeps_no_field_of_another_rounds_provider(state: BlockingState) -> None:
    batch_id = ended(state)
    retry(state, batch_id)
    start(state, batch_id)
    names = fields(state, keys.batch(batch_id))
    assert not [name for name in names if name.endswith(":a")]
    assert state.run(Call(("LLEN", keys.lines(batch_id, "b")), int)) == 1
    assert record_of(state, batch_id).batch.created_at == CREATED_AT
