"""Who may send a line: claims, the fences against who lost his, and the strikes of a line whose workers died."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.lifecycle import Outcome, Status
from batchord.state import keys, shards
from batchord.state.calls import Call
from batchord.state.shards import Contact, LineRecord, Verdict
from tests.unit.fake_state import (
    CLAIM_S,
    DEADLINE,
    begin,
    contents,
    fields,
    key_names,
    late,
    missing,
    move,
    opened,
    pass_time,
    record,
    record_of,
    succeeded,
    time_of,
)

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState
    from batchord.state.keys import Shard


def claims(state: BlockingState, shard: Shard) -> dict[str, str]:
    return fields(state, keys.claims(shard))


def strikes(state: BlockingState, shard: Shard) -> dict[str, str]:
    return fields(state, keys.strikes(shard))


def die(state: BlockingState, shard: Shard, worker: str, *indices: int) -> list[Verdict]:
    """Have a worker begin lines and die."""
    verdicts = begin(state, shard, worker, *indices)
    pass_time(state, CLAIM_S)
    return verdicts


def test_a_line_that_nobody_sends_is_claimed_by_who_asks(state: BlockingState) -> None:
    shard = opened(state, 3)
    assert begin(state, shard, "w1", 0, 2) == [Verdict.SEND, Verdict.SEND]
    assert claims(state, shard) == {"0": "w1", "2": "w1"}


def test_a_line_that_a_living_worker_sends_is_not_given_to_another(state: BlockingState) -> None:
    shard = opened(state, 2)
    begin(state, shard, "w1", 0)
    pass_time(state, CLAIM_S - 100)
    assert begin(state, shard, "w2", 0, 1) == [Verdict.CLAIMED, Verdict.SEND]
    assert claims(state, shard) == {"0": "w1", "1": "w2"}


def test_a_line_named_twice_in_one_call_is_this_workers_both_times(state: BlockingState) -> None:
    shard = opened(state, 1)
    assert begin(state, shard, "w1", 0, 0) == [Verdict.SEND, Verdict.SEND]
    assert claims(state, shard) == {"0": "w1"}


def test_the_claims_of_a_dead_worker_are_taken_over_when_they_run_out(state: BlockingState) -> None:
    shard = opened(state, 1)
    die(state, shard, "dead", 0)
    assert begin(state, shard, "w2", 0) == [Verdict.SEND]
    assert claims(state, shard) == {"0": "w2"}
    assert begin(state, shard, "dead", 0) == [Verdict.CLAIMED]


def test_a_worker_that_asks_again_keeps_its_claim_for_longer(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    pass_time(state, 2_000)
    assert begin(state, shard, "w1", 0) == [Verdict.SEND]
    pass_time(state, 2_000)
    assert begin(state, shard, "w2", 0) == [Verdict.CLAIMED]


def test_renewing_prolongs_all_claims_of_this_worker_and_no_others(state: BlockingState) -> None:
    shard = opened(state, 3)
    begin(state, shard, "w1", 0, 1)
    begin(state, shard, "w2", 2)
    pass_time(state, 2_000)
    assert state.run(shards.renew(shard, "w1"))
    pass_time(state, 2_000)
    assert begin(state, shard, "w3", 0, 1, 2) == [Verdict.CLAIMED, Verdict.CLAIMED, Verdict.SEND]


@pytest.mark.parametrize("lines", [(1,), (1, 1)])
def test_renewing_in_a_sealed_shard_leaves_no_trace(state: BlockingState, lines: tuple[int, ...]) -> None:
    shard = opened(state, *lines)
    state.run(record(shard, succeeded(0)))
    state.run(shards.seal(shard, 0))
    before = contents(state)
    assert not state.run(shards.renew(shard, "w1"))
    assert contents(state) == before


def test_a_line_with_an_outcome_is_not_sent_again(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(record(shard, succeeded(0)))
    assert begin(state, shard, "w1", 0, 1) == [Verdict.RECORDED, Verdict.SEND]
    assert claims(state, shard) == {"1": "w1"}


def test_a_line_of_a_shard_that_is_not_open_is_not_sent_and_leaves_no_claim(state: BlockingState) -> None:
    shard = opened(state, 1, 1)
    state.run(record(shard, succeeded(0)))
    state.run(shards.seal(shard, 0))
    before = contents(state)
    for number in (0, 1):
        assert begin(state, shard._replace(number=number), "w1", 0) == [Verdict.RECORDED]
    assert contents(state) == before


@pytest.mark.parametrize(
    ("status", "left_s", "verdict"),
    [
        (Status.IN_PROGRESS, 100, Verdict.SEND),
        (Status.IN_PROGRESS, -100, Verdict.EXPIRED),
        (Status.FINALIZING, 100, Verdict.EXPIRED),
        (Status.CANCELLING, 100, Verdict.CANCELLED),
        (Status.CANCELLING, -100, Verdict.CANCELLED),
    ],
)
def test_a_line_is_sent_only_while_its_batch_runs_and_has_time(
    state: BlockingState, status: Status, left_s: float, verdict: Verdict
) -> None:
    shard = opened(state, 1)
    move(state, shard.batch_id, status)
    pass_time(state, int(DEADLINE - time_of(state) - left_s))
    assert begin(state, shard, "w1", 0) == [verdict]
    assert claims(state, shard) == ({"0": "w1"} if verdict is Verdict.SEND else {})
    may_be_sent = state.run(shards.missing(shard, CLAIM_S, Contact())).may_be_sent
    assert may_be_sent is (verdict is Verdict.SEND)


@pytest.mark.parametrize(("status", "verdict"), [(Status.CANCELLING, "cancelled"), (Status.FINALIZING, "expired")])
def test_its_own_worker_learns_that_a_line_is_not_to_be_sent_again(
    state: BlockingState, status: Status, verdict: str
) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    move(state, shard.batch_id, status)
    assert begin(state, shard, "w2", 0) == [Verdict.CLAIMED]
    assert begin(state, shard, "w1", 0) == [Verdict(verdict)]


def test_missing_are_the_lines_without_outcome_that_no_living_worker_sends(state: BlockingState) -> None:
    shard = opened(state, 12)
    state.run(record(shard, succeeded(5, 10)))
    begin(state, shard, "dead", 1, 2)
    pass_time(state, 1_000)
    begin(state, shard, "w2", 3, 11)
    assert missing(state, shard) == [0, 4, 6, 7, 8, 9]
    pass_time(state, 2_000)
    assert missing(state, shard) == [0, 1, 2, 4, 6, 7, 8, 9]
    pass_time(state, 1_000)
    assert missing(state, shard) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 11]


def test_nothing_is_missing_of_a_shard_that_is_complete_or_not_open(state: BlockingState) -> None:
    shard = opened(state, 2, 5)
    state.run(record(shard, succeeded(0, 1)))
    assert missing(state, shard) == []
    state.run(shards.seal(shard, 0))
    assert [missing(state, shard._replace(number=n)) for n in (0, 1)] == [[], []]


NEWCOMER = Contact()
NEVER_SILENT_S = CLAIM_S // 3


@pytest.mark.parametrize(
    ("since_s", "until_s", "may_judge"),
    [
        (CLAIM_S + 100, 0, True),
        (CLAIM_S - 100, 0, False),
        (2 * CLAIM_S, NEVER_SILENT_S - 100, True),
        (2 * CLAIM_S, NEVER_SILENT_S + 100, False),
        (2 * CLAIM_S, -100, False),
        (-100, -100, False),
    ],
    ids=["for a claim", "too short", "silent for a little", "silent", "in the future", "all in the future"],
)
def test_only_who_was_in_touch_with_redis_for_a_claim_takes_another_for_dead(
    state: BlockingState, since_s: float, until_s: float, *, may_judge: bool
) -> None:
    shard = opened(state, 2)
    die(state, shard, "w1", 0)
    contact = Contact(time_of(state) - since_s, time_of(state) - until_s)
    found = state.run(shards.missing(shard, CLAIM_S, contact)).indices
    (verdict, _) = state.run(shards.begin(shard, "w2", CLAIM_S, contact, [0, 1]))
    assert (found, verdict) == (([0, 1], Verdict.SEND) if may_judge else ([1], Verdict.UNSURE))


@pytest.mark.parametrize(
    ("now", "expected"),
    [(110, Contact(50, 110)), (120, Contact(50, 120)), (121, Contact(121, 121)), (99, Contact(99, 99))],
    ids=["soon", "just in time", "too late", "the clock was set back"],
)
def test_a_contact_ends_by_silence_and_by_a_clock_that_was_set_back(now: float, expected: Contact) -> None:
    assert Contact(50, 100).prolonged(now, claim_s=60) == expected


def test_the_first_contact_begins_with_its_first_answer() -> None:
    assert NEWCOMER.prolonged(1_000_000, claim_s=60) == Contact(1_000_000, 1_000_000)


def test_who_lived_in_the_future_of_a_clock_that_was_set_back_is_dead(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    pass_time(state, -100)
    assert begin(state, shard, "w2", 0) == [Verdict.SEND]


def test_an_answer_for_a_line_that_another_living_worker_sends_is_late(state: BlockingState) -> None:
    shard = opened(state, 2)
    die(state, shard, "slow", 0)
    begin(state, shard, "w2", 0)
    assert state.run(record(shard, succeeded(0, 1), "slow")) == 1
    assert (late(state, shard.batch_id), claims(state, shard)) == (1, {"0": "w2"})
    assert state.run(record(shard, [LineRecord(0, Outcome.FAILED, b"w2")], "w2")) == 1
    assert state.run(shards.outcomes(shard, [0])) == [b"fw2"]
    assert late(state, shard.batch_id) == 1


def test_an_answer_counts_though_its_worker_was_thought_dead_if_who_took_over_is_dead_too(
    state: BlockingState,
) -> None:
    shard = opened(state, 1)
    die(state, shard, "slow", 0)
    die(state, shard, "w2", 0)
    assert state.run(record(shard, succeeded(0), "slow")) == 1
    assert (late(state, shard.batch_id), claims(state, shard)) == (0, {})


def test_what_was_never_sent_is_not_late(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    assert state.run(record(shard, [LineRecord(0, Outcome.CANCELLED, b"{}")], "w2")) == 0
    assert late(state, shard.batch_id) == 0


def test_an_outcome_without_a_claim_counts(state: BlockingState) -> None:
    shard = opened(state, 4)
    records = [LineRecord(index, outcome, b"{}") for index, outcome in enumerate(Outcome)]
    assert state.run(record(shard, records)) == 4
    assert record_of(state, shard.batch_id).recorded == 4


def test_a_worker_releases_only_its_own_claims(state: BlockingState) -> None:
    shard = opened(state, 4)
    begin(state, shard, "w1", 0, 1)
    begin(state, shard, "w2", 2)
    assert state.run(shards.release(shard, "w1", [0, 2, 3])) == 1
    assert claims(state, shard) == {"1": "w1", "2": "w2"}
    assert begin(state, shard, "w3", 0, 1, 2) == [Verdict.SEND, Verdict.CLAIMED, Verdict.CLAIMED]


def test_a_claim_released_after_it_was_taken_over_stays(state: BlockingState) -> None:
    shard = opened(state, 1)
    die(state, shard, "slow", 0)
    begin(state, shard, "w2", 0)
    assert state.run(shards.release(shard, "slow", [0])) == 0
    assert claims(state, shard) == {"0": "w2"}


def test_a_line_is_suspect_after_two_deaths_and_poisoned_after_five(state: BlockingState) -> None:
    shard = opened(state, 2)
    verdicts = [die(state, shard, f"w{n}", 0)[0] for n in range(6)]
    assert verdicts == [Verdict.SEND] * 2 + [Verdict.SUSPECT] * 3 + [Verdict.POISONED]
    assert begin(state, shard, "w6", 0, 1) == [Verdict.POISONED, Verdict.SEND]
    assert strikes(state, shard) == {"0": "6"}


def test_asking_again_is_no_strike_and_a_suspect_stays_one(state: BlockingState) -> None:
    shard = opened(state, 1)
    for worker in ("w1", "w2"):
        die(state, shard, worker, 0)
    assert [begin(state, shard, "w3", 0) for _ in range(9)] == [[Verdict.SUSPECT]] * 9
    state.run(shards.release(shard, "w3", [0]))
    assert begin(state, shard, "w4", 0) == [Verdict.SUSPECT]
    assert strikes(state, shard) == {"0": "2"}


def test_a_line_taken_over_twice_in_one_call_has_one_strike(state: BlockingState) -> None:
    shard = opened(state, 1)
    die(state, shard, "w1", 0)
    assert begin(state, shard, "w2", 0, 0) == [Verdict.SEND] * 2
    assert strikes(state, shard) == {"0": "1"}


def test_a_claim_that_was_given_up_or_disowned_is_no_strike(state: BlockingState) -> None:
    shard = opened(state, 2)
    begin(state, shard, "w1", 0, 1)
    state.run(shards.release(shard, "w1", [0]))
    assert begin(state, shard, "w2", 0) == [Verdict.SEND]
    state.run(shards.disown(shard))
    assert begin(state, shard, "w3", 0, 1) == [Verdict.SEND] * 2
    assert strikes(state, shard) == {}


def test_a_late_record_of_a_batch_that_is_gone_makes_no_key(state: BlockingState) -> None:
    shard = opened(state, 1)
    begin(state, shard, "w1", 0)
    state.run(Call(("FLUSHALL",), bool))
    state.run(record(shard, succeeded(0), "w1"))
    assert not state.run(shards.renew(shard, "w1"))
    assert begin(state, shard, "w1", 0) == [Verdict.RECORDED]
    assert key_names(state) == set()
