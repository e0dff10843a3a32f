"""What the fleet knows of a provider follows from what its workers tell: pauses, the circuit, who probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.state import conditions, keys, reports
from batchord.state.calls import Call
from batchord.state.conditions import Health, ProviderCondition
from batchord.state.reports import Report
from tests.unit.fake_state import fields, is_documented, key_names, time_of

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState

KEY = keys.condition("p")


def read(state: BlockingState) -> ProviderCondition:
    (known,) = state.run(conditions.read(["p"]))
    return known


def pass_time(state: BlockingState, seconds: float) -> None:
    """Move all that is known into the past."""
    for field, value in fields(state, KEY).items():
        if field.endswith(("_at", "_until", "_since")):
            state.run(Call(("HSET", KEY, field, f"{float(value) - seconds:.6f}"), int))


def refuse(state: BlockingState, wait_s: float | None = None, sent_ago_s: float = 0) -> ProviderCondition:
    return state.run(conditions.paused("p", sent_ago_s, wait_s, reason="HTTP 429", is_well=True))


def fail(  # noqa: PLR0913 (what a worker tells of a failure)
    state: BlockingState,
    count: int = 1,
    *,
    worker: str = "w",
    sent_ago_s: float = 0,
    give_up_after_s: float | None = None,
    is_probe: bool = False,
) -> ProviderCondition:
    call = conditions.failed(
        "p",
        worker,
        sent_ago_s,
        count=count,
        reason="connection refused",
        give_up_after_s=give_up_after_s,
        is_probe=is_probe,
    )
    return state.run(call)


def answer(state: BlockingState, *, worker: str = "w", sent_ago_s: float = 0, is_probe: bool = False) -> None:
    state.run(conditions.answered("p", worker, sent_ago_s, is_probe=is_probe))


def open_circuit(state: BlockingState) -> ProviderCondition:
    fail(state, 4)
    pass_time(state, 1)
    return fail(state)


def take_probe(state: BlockingState, worker: str) -> str:
    return state.run(conditions.take_probe("p", worker, 15)).probe


def test_of_a_provider_that_nothing_was_told_of_nothing_is_known_and_nothing_kept(state: BlockingState) -> None:
    known = read(state)
    assert (known.health, known.wait_s, known.failing_s) == (Health.CLOSED, 0, 0)
    assert abs(known.now - time_of(state)) < 60
    take_probe(state, "a")
    state.run(conditions.let_go("p", "a"))
    assert key_names(state) == set()


def test_a_pause_is_as_long_as_the_provider_asked_for_and_is_never_cut_short(state: BlockingState) -> None:
    until = refuse(state, 30).pause_until
    assert until == pytest.approx(time_of(state) + 30, abs=5)
    assert refuse(state, 10).pause_until == until
    assert refuse(state, 50).pause_until > until + 15
    assert read(state).health is Health.PAUSED


def test_no_pause_is_longer_than_a_day(state: BlockingState) -> None:
    assert refuse(state, 1e9).wait_s == pytest.approx(86_400)


def test_refusals_without_a_time_double_the_pause_to_a_minute(state: BlockingState) -> None:
    waits = []
    for _ in range(10):
        waits.append(refuse(state).wait_s)
        pass_time(state, 100)
    doubling = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 60, 60)
    assert all(full <= wait <= full * 1.25 for wait, full in zip(waits, doubling, strict=True))


def test_refusals_of_requests_sent_before_the_end_of_a_pause_are_one_event(state: BlockingState) -> None:
    until = refuse(state).pause_until
    assert refuse(state, sent_ago_s=0.5).pause_until == until
    assert refuse(state).pauses == 1
    pass_time(state, 5)
    assert refuse(state, sent_ago_s=6).pauses == 1
    assert refuse(state, sent_ago_s=1).pauses == 2


def test_an_answer_to_a_request_sent_after_the_pause_ends_the_doubling(state: BlockingState) -> None:
    refuse(state)
    pass_time(state, 5)
    answer(state, sent_ago_s=20)
    assert read(state).pauses == 1
    answer(state)
    assert (read(state).pauses, read(state).reason) == (0, "")
    assert refuse(state).wait_s <= 1.25


def test_five_failures_in_a_row_open_the_circuit_for_a_second(state: BlockingState) -> None:
    known = open_circuit(state)
    assert 1 <= known.open_until - known.now <= 1.25
    assert (known.opens, known.reason) == (1, "connection refused")


def test_failures_that_an_answer_interrupts_do_not_open_it(state: BlockingState) -> None:
    fail(state, 4)
    pass_time(state, 1)
    answer(state)
    fail(state, 4)
    pass_time(state, 1)
    assert read(state).open_until == 0
    assert fail(state).open_until > 0


def test_failures_beside_each_other_in_the_same_moment_do_not_open_it(state: BlockingState) -> None:
    assert fail(state, 50).open_until == 0


def test_failures_that_do_not_count_never_open_it_but_begin_its_trouble(state: BlockingState) -> None:
    for _ in range(20):
        known = fail(state, 0)
        pass_time(state, 1)
    assert known.open_until == 0
    assert known.failing_s == pytest.approx(19, abs=2)


def test_who_fails_for_as_long_as_makes_it_given_up_is_open_so_that_a_probe_finds_out(state: BlockingState) -> None:
    fail(state, 0, give_up_after_s=60)
    pass_time(state, 61)
    assert fail(state, 0, give_up_after_s=60).open_until > 0


def test_what_was_sent_before_the_circuit_opened_or_closed_tells_nothing_new(state: BlockingState) -> None:
    opened = open_circuit(state)
    assert fail(state, 9, sent_ago_s=5).open_until == opened.open_until
    pass_time(state, 3)
    take_probe(state, "w")
    answer(state, is_probe=True)
    fail(state, 9, sent_ago_s=5)
    assert read(state).failures == 0


def test_one_worker_of_the_fleet_probes_once_the_circuit_is_half_open(state: BlockingState) -> None:
    open_circuit(state)
    assert take_probe(state, "a") == ""
    pass_time(state, 2)
    assert read(state).health is Health.SILENT
    assert [take_probe(state, worker) for worker in "abab"] == ["a", "a", "a", "a"]


def test_nobody_probes_during_a_pause(state: BlockingState) -> None:
    open_circuit(state)
    refuse(state, 60)
    pass_time(state, 5)
    assert take_probe(state, "a") == ""


def test_the_probe_of_a_dead_worker_goes_to_another(state: BlockingState) -> None:
    open_circuit(state)
    pass_time(state, 2)
    take_probe(state, "dead")
    pass_time(state, 16)
    assert take_probe(state, "b") == "b"


def test_a_probe_that_is_let_go_is_another_s_but_nobody_lets_go_that_of_another(state: BlockingState) -> None:
    open_circuit(state)
    pass_time(state, 2)
    take_probe(state, "a")
    state.run(conditions.let_go("p", "b"))
    assert take_probe(state, "b") == "a"
    state.run(conditions.let_go("p", "a"))
    assert take_probe(state, "b") == "b"


def test_a_probe_that_fails_opens_the_circuit_for_twice_as_long_to_half_a_minute(state: BlockingState) -> None:
    waits = [open_circuit(state).wait_s]
    for _ in range(6):
        pass_time(state, 40)
        take_probe(state, "w")
        waits.append(fail(state, 0, is_probe=True).wait_s)
    assert all(full <= wait <= full * 1.25 for wait, full in zip(waits, (1, 2, 4, 8, 16, 30, 30), strict=True))


def test_only_its_prober_s_probe_ends_what_is_half_open(state: BlockingState) -> None:
    open_circuit(state)
    pass_time(state, 2)
    take_probe(state, "a")
    fail(state, 9, worker="b", is_probe=True)
    fail(state, 9, worker="a")
    answer(state, worker="b", is_probe=True)
    answer(state, worker="a")
    assert (read(state).opens, read(state).probe, read(state).health) == (1, "a", Health.HALF_OPEN)
    answer(state, worker="a", is_probe=True)
    assert (read(state).health, read(state).reason) == (Health.CLOSED, "")
    assert open_circuit(state).wait_s <= 1.25


def test_trouble_begins_with_the_first_failure_and_ends_with_an_answer_or_a_refusal(state: BlockingState) -> None:
    fail(state)
    pass_time(state, 12)
    known = fail(state)
    assert known.failing_s == pytest.approx(12, abs=2)
    assert (known.health, known.answered_at) == (Health.SILENT, 0)
    refuse(state)
    assert (read(state).failing_since, read(state).health) == (0, Health.PAUSED)
    fail(state)
    answer(state)
    assert (read(state).failing_since, read(state).answered_at > 0) == (0, True)


def test_a_pause_asked_for_by_a_failure_does_not_end_the_trouble(state: BlockingState) -> None:
    fail(state)
    state.run(conditions.paused("p", 0, 5, reason="HTTP 503", is_well=False))
    assert read(state).failing_since > 0


def test_trouble_of_long_ago_in_which_nothing_was_tried_since_is_not_the_same(state: BlockingState) -> None:
    fail(state)
    pass_time(state, 1_000)
    assert fail(state).failing_s < 60


def test_a_fleet_that_begins_anew_knows_of_the_pause_alone(state: BlockingState) -> None:
    open_circuit(state)
    answer(state)
    until = refuse(state, 30).pause_until
    state.run(conditions.begin_anew("p"))
    known = read(state)
    assert known == ProviderCondition("p", now=known.now, pause_until=until, reason="HTTP 429")


def test_what_is_known_ends_two_days_after_its_last_change(state: BlockingState) -> None:
    refuse(state)
    assert 86_400 < state.run(Call(("TTL", KEY), int)) <= 2 * 86_400
    assert is_documented(KEY)
    assert is_documented(keys.reports("p"))


def report(worker: str, in_flight: int) -> Report:
    return Report(worker, in_flight, 2, permits=8, sent=100, rate_per_minute=600.5, refused=3, failed=1)


def test_a_provider_is_read_with_the_sum_of_what_its_workers_report(state: BlockingState) -> None:
    refuse(state, 30)
    state.run(reports.write({"p": report("a", 5), "q": report("a", 1)}))
    state.run(reports.write({"p": report("b", 2)}))
    p, q, r = state.run(reports.read("p", "q", "r"))
    assert (p.name, p.condition.health, p.workers, p.in_flight, p.waiting) == ("p", Health.PAUSED, 2, 7, 4)
    assert (p.permits, p.sent, p.rate_per_minute, p.refused, p.failed) == (16, 200, 1201, 6, 2)
    assert (q.name, q.condition.health, q.in_flight) == ("q", Health.CLOSED, 1)
    assert (r.workers, r.in_flight, r.rate_per_minute) == (0, 0, 0)
    assert p.reports[0].at == pytest.approx(time_of(state), abs=60)


def test_a_worker_that_is_silent_or_has_left_is_not_counted(state: BlockingState) -> None:
    state.run(reports.write({"p": report("a", 5)}))
    state.run(reports.write({"p": report("b", 2)}))
    state.run_all(reports.leave("b", ["p"]))
    assert [each.worker for each in state.run(reports.read("p"))[0].reports] == ["a"]
    name = keys.reports("p")
    at, _, text = fields(state, name)["a"].partition(" ")
    state.run(Call(("HSET", name, "a", f"{float(at) - 16} {text}"), int))
    assert state.run(reports.read("p"))[0].reports == []
    assert key_names(state) == set()
