"""What a copy that waits for its original is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchord.lifecycle import Outcome
from batchord.state import analytics, shards
from batchord.state.shards import LineRecord
from tests.unit.fake_state import CLAIM_S, begin, opened, pass_time, record, succeeded

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState
    from batchord.state.keys import Shard


def look(state: BlockingState, shard: Shard, *indices: int) -> list[bytes]:
    return state.run(shards.look(shard, CLAIM_S, indices))


def test_a_line_is_unclaimed_then_claimed_then_recorded(state: BlockingState) -> None:
    shard = opened(state, 3)
    begin(state, shard, "w", 1, 2)
    state.run(record(shard, succeeded(2)))
    assert look(state, shard, 0, 1, 2) == [b"unclaimed", b"claimed", b"s{}"]


def test_what_a_dead_worker_claimed_is_unclaimed(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w", 0)
    pass_time(state, CLAIM_S + 1)
    assert look(state, shard, 0) == [b"unclaimed"]


def test_a_sealed_shard_is_told_from_one_whose_line_nobody_sends(state: BlockingState) -> None:
    shard = opened(state, 1)
    state.run(record(shard, succeeded(0)))
    assert state.run(shards.seal(shard, 1))
    assert look(state, shard, 0) == [b"sealed"]


def test_a_copy_is_counted_once_and_as_one_that_took_no_time(state: BlockingState) -> None:
    shard = opened(state, 2)
    copy = LineRecord(0, Outcome.SUCCEEDED, b"{}", model="m", is_copy=True)
    state.run_all([record(shard, [copy])] * 2)
    (tally,) = state.run(analytics.read(shard.batch_id)).values()
    assert (tally.counts["duplicates"], tally.counts["completed"]) == (1, 1)
    assert (tally.latencies, tally.ttfbs, tally.counts["unpriced"]) == ({}, {}, 0)
