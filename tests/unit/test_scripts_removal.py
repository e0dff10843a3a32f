"""Entering a batch, its Idempotency-Key, and the two moves of its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.contract import DEFAULT_TENANT
from batchord.lifecycle import Status
from batchord.state import batches, keys, listings, once, removal, retired, rounds
from batchord.state.calls import Call
from batchord.state.once import Claim
from tests.unit.fake_state import (
    CREATED_AT,
    batch_object,
    contents,
    created,
    is_documented,
    key_names,
    record_of,
    started,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState

LISTING = keys.tenant_batches(DEFAULT_TENANT)
ENDED = [status for status in Status if status.is_terminal]
RUNNING = [status for status in Status if not status.is_terminal]


def test_a_batch_that_enters_twice_is_entered_once_and_keeps_its_place(state: BlockingState) -> None:
    batch = batch_object()
    state.run_all([*batches.enter(batch, 1_000.5), *batches.enter(batch_object(), 1_001.5)])
    state.run_all(batches.enter(batch.model_copy(update={"endpoint": "/v1/embeddings"}), 1_002.5))
    assert record_of(state, batch.id).batch == batch
    page = state.run(listings.page(LISTING, after=None, most=9))
    assert page is not None
    assert (len(page), page[-1]) == (2, batch.id)
    assert {batch_id for batch_id, _ in state.run(batches.active())} == set(page)
    assert all(map(is_documented, key_names(state)))


def test_a_listing_tells_when_its_batches_were_put_there_and_which_are_not_on_it(state: BlockingState) -> None:
    mine, other = batch_object(), batch_object(tenant="other")
    state.run_all([*batches.enter(mine, 1_000.25), *batches.enter(other, 1_001)])
    assert state.run(batches.listed_at(DEFAULT_TENANT, [other.id, mine.id])) == [None, 1_000.25]


def test_of_two_claims_of_a_key_the_first_holds(state: BlockingState) -> None:
    first, second, key = Claim("print-1", "batch_1"), Claim("print-2", "batch_2"), once.digest("key ☃")
    assert state.run(once.read("team", key)) is None
    state.run_all([once.claim("team", key, first), once.claim("team", key, second)])
    assert state.run(once.read("team", key)) == first
    assert state.run(once.read("other", key)) is None
    assert state.run(once.read("team", once.digest("key"))) is None
    state.run(once.forget("team", key))
    assert state.run(once.read("team", key)) is None


def test_a_claim_goes_after_a_day(state: BlockingState) -> None:
    state.run(once.claim("team", once.digest("key"), Claim("print", "batch_1")))
    (key,) = key_names(state)
    assert is_documented(key)
    assert 0 < state.run(Call(("TTL", key), int)) <= 86_400


@pytest.mark.parametrize("status", RUNNING)
def test_a_batch_that_runs_is_not_condemned(state: BlockingState, status: Status) -> None:
    batch_id = created(state, status)
    before = contents(state)
    assert not state.run(removal.condemn(record_of(state, batch_id)))
    assert contents(state) == before


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_batch_is_condemned_and_a_repeat_changes_nothing(state: BlockingState, status: Status) -> None:
    batch_id = created(state, status)
    record = record_of(state, batch_id)
    assert not record.removing
    for _ in range(2):
        assert state.run(removal.condemn(record))
        assert record_of(state, batch_id).removing


def test_nothing_is_condemned_where_no_batch_is(state: BlockingState) -> None:
    record = record_of(state, created(state, Status.COMPLETED))
    state.run_all(removal.erase(record))
    assert not state.run(removal.condemn(record))
    assert key_names(state) == set()


def test_of_a_removal_and_a_retry_the_first_wins(state: BlockingState) -> None:
    removed, retried = (record_of(state, created(state, Status.COMPLETED)) for _ in range(2))
    assert state.run(removal.condemn(removed))
    assert not state.run(rounds.retry(removed, 9_000, "selection"))
    assert state.run(rounds.retry(retried, 9_000, "selection"))
    assert not state.run(removal.condemn(retried))
    assert record_of(state, removed.batch.id).batch.status is Status.COMPLETED
    assert record_of(state, retried.batch.id).batch.status is Status.VALIDATING


def test_a_batch_whose_retry_has_ended_is_not_condemned_by_who_knows_only_the_round_before(
    state: BlockingState,
) -> None:
    batch_id = created(state, Status.COMPLETED)
    stale = record_of(state, batch_id)
    assert state.run(rounds.retry(stale, 9_000, "selection"))
    state.run(Call(("HSET", keys.batch(batch_id), "status", Status.COMPLETED), bool))
    assert not state.run(removal.condemn(stale))
    assert state.run(removal.condemn(record_of(state, batch_id)))


def test_erasing_leaves_no_key_and_may_be_repeated(state: BlockingState) -> None:
    batch_id = started(state, {"local": [3], "other": [1, 2]})
    state.run(Call(("HSET", keys.analytics(batch_id), "calls", 1), bool))
    state.run_all([listings.note(LISTING, batch_id, CREATED_AT), retired.note(batch_id, CREATED_AT)])
    record = record_of(state, batch_id)
    for _ in range(2):
        state.run_all(removal.erase(record))
        assert key_names(state) == set()
