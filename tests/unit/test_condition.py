"""How one process waits for a provider: what it sees holds at once, and lines go on in order."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from batchord.contract import NO_USAGE
from batchord.errors import StateUnavailableError
from batchord.routing import Provider
from batchord.shard_file import Attempt
from batchord.state import conditions, keys
from batchord.state.calls import Call
from batchord.state.keys import Shard
from tests.unit.fake_state import FakeState, fields, key_names
from workers.condition import Condition
from workers.line import LineUnderWay
from workers.meaning import Meaning, meaning_of, reason_of
from workers.news import Answered, Failed, Paused, Probe, joined
from workers.providers.seam import ProviderError, Response
from workers.reporting import Tally
from workers.waves import Waves

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from batchord.state.conditions import ProviderCondition
    from workers.news import Event

T = TypeVar("T")

BOUND_S = 20
KEY = keys.condition("p")
REFUSED = ProviderError("connection_error", "The provider could not be reached: connection refused", is_unsent=True)
TIMED_OUT = ProviderError("request_timeout", "The provider did not answer within 600 s.")


def response(status_code: int, retry_after_s: float | None = None, *, is_unsent: bool = False) -> Response:
    return Response(status_code, b"{}", "", NO_USAGE, retry_after_s, 1, 1, is_unsent=is_unsent)


OK = response(200)


class Fleet:
    """A Redis that can be away, and the conditions of workers that speak to it; `told` counts their calls."""

    def __init__(self) -> None:
        self.state = FakeState()
        self.told = 0
        self.is_away = False
        self.at_next_run: Callable[[], object] | None = None
        self._workers: list[Condition] = []

    def worker(self, name: str = "a", give_up_after_s: float | None = None) -> Condition:
        provider = Provider(name="p", kind="simulated")
        self._workers.append(Condition(provider, name, self.run, give_up_after_s))
        return self._workers[-1]

    async def run(self, call: Call[T]) -> T:
        if self.is_away:
            raise StateUnavailableError("Redis is away.")
        self.told += 1
        if self.at_next_run:
            asyncio.get_running_loop().call_soon(self.at_next_run)  # before who is woken by the answer
            self.at_next_run = None
        return self.state.run(call)

    def known(self) -> ProviderCondition:
        return self.state.run(conditions.read(["p"]))[0]

    def look(self) -> None:
        for worker in self._workers:
            worker.hear(self.known())

    def pass_time(self, seconds: float) -> None:
        """Move all that Redis knows into the past, and let the workers see it."""
        for field, value in fields(self.state, KEY).items():
            if field.endswith(("_at", "_until", "_since")):
                self.state.run(Call(("HSET", KEY, field, f"{float(value) - seconds:.6f}"), int))
        self.look()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def waiting(condition: Condition, count: int) -> AsyncIterator[list[asyncio.Task[bool]]]:
    """Lines that wait, in their order."""
    tasks = [asyncio.create_task(condition.clear()) for _ in range(count)]
    await asyncio.sleep(0)
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def opened(fleet: Fleet, condition: Condition) -> None:
    """Have the circuit opened by what a worker tells."""
    for _ in range(4):
        condition.tell(REFUSED, time.monotonic())
    await until(lambda: fleet.known().failures == 4)
    fleet.pass_time(1)
    condition.tell(REFUSED, time.monotonic())
    await until(lambda: fleet.known().opens == 1 and not condition.is_clear)
    fleet.look()


@pytest.mark.parametrize(
    ("result", "meaning"),
    [
        (OK, Meaning.ANSWERED),
        (response(400), Meaning.ANSWERED),
        (response(408), Meaning.ANSWERED),
        (response(429), Meaning.REFUSED),
        (response(500), Meaning.FAILED),
        (response(529), Meaning.FAILED),
        (response(400, is_unsent=True), Meaning.NOTHING),
        (REFUSED, Meaning.FAILED),
        (TIMED_OUT, Meaning.TIMED_OUT),
        (ProviderError("invalid_response", "no JSON"), Meaning.ANSWERED),
        (ProviderError("provider_error", "an error in a 200"), Meaning.ANSWERED),
    ],
)
def test_what_a_result_says_of_its_provider(result: Response | ProviderError, meaning: Meaning) -> None:
    assert meaning_of(result) is meaning


def test_a_reason_is_a_few_words() -> None:
    assert [reason_of(response(502)), reason_of(REFUSED)] == ["HTTP 502", "connection refused"]


async def test_a_healthy_provider_costs_no_call_a_line(fleet: Fleet) -> None:
    condition = fleet.worker()
    for _ in range(200):
        assert not await condition.clear()
        condition.tell(OK, time.monotonic())
        await asyncio.sleep(0)
    await until(lambda: fleet.known().answered_at > 0)
    assert fleet.told == 1


async def test_a_refusal_holds_at_once_in_the_process_that_saw_it(fleet: Fleet) -> None:
    condition = fleet.worker()
    pauses: list[bool] = []
    condition.on_pause = lambda: pauses.append(condition.is_clear)
    condition.tell(response(429, 30), time.monotonic())
    assert not condition.is_clear
    assert 29 < condition.unavailable_s <= 30
    assert pauses == [False]
    assert fleet.told == 0
    await until(lambda: fleet.known().pause_until > 0)


async def test_a_pause_ends_by_itself(fleet: Fleet) -> None:
    condition = fleet.worker()
    condition.pause(0.1)
    async with waiting(condition, 1) as (line,):
        assert not line.done()
        async with asyncio.timeout(BOUND_S):
            assert await line is False
    await until(lambda: condition.is_clear)
    assert condition.unavailable_s == 0


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_pause_is_heard_by_the_others_and_holds_here_while_redis_is_away(
    fleet: Fleet, *, is_away: bool
) -> None:
    one, other = fleet.worker("a"), fleet.worker("b")
    fleet.is_away = is_away
    one.tell(response(503, 40), time.monotonic())
    assert not one.is_clear
    if is_away:
        assert other.is_clear
        fleet.is_away = False
    await until(lambda: fleet.known().pause_until > 0)
    fleet.look()
    assert [38 < each.unavailable_s <= 40 for each in (one, other)] == [True, True]


async def test_many_refusals_of_one_moment_are_one_pause_and_few_calls(fleet: Fleet) -> None:
    condition = fleet.worker()
    sent_at = time.monotonic()
    for _ in range(300):
        condition.tell(response(429), sent_at)
    await until(lambda: fleet.known().pauses > 0)
    assert (fleet.known().pauses, fleet.told) == (1, 1)
    assert condition.unavailable_s <= 1.3


async def test_the_pause_of_an_answer_that_says_so_begins_at_once(fleet: Fleet) -> None:
    condition = fleet.worker()
    condition.tell(response(400, 20), time.monotonic())
    assert 19 < condition.unavailable_s <= 20


async def test_lines_go_on_in_order_after_a_pause_and_who_comes_late_waits_behind_them(fleet: Fleet) -> None:
    condition, order = fleet.worker(), list[int]()

    async def line(number: int) -> None:
        await condition.clear()
        order.append(number)

    condition.pause(0.05)
    lines = [asyncio.create_task(line(number)) for number in range(40)]
    await until(lambda: bool(order))
    late = asyncio.create_task(line(40))
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*lines, late)
    assert order == list(range(41))
    await until(lambda: condition.is_clear)


async def test_waves_double_and_pass_over_who_is_gone() -> None:
    waves = Waves()
    turns = [waves.join() for _ in range(9)]
    turns[0].cancel()
    turns[2].cancel()
    gone = []
    now = 0.0
    while (next_at := waves.release(now)) is not None:
        assert waves.release(next_at - 0.001) == next_at
        gone.append(sum(turn.done() and not turn.cancelled() for turn in turns))
        now = next_at
    assert (gone, bool(waves)) == ([1, 3], False)
    assert all(turn.cancelled() or turn.result() is False for turn in turns)


async def test_who_stops_waiting_in_a_long_pause_leaves_nothing_behind(fleet: Fleet) -> None:
    condition = fleet.worker()
    condition.pause(600)
    async with waiting(condition, 1):
        for _ in range(3):
            async with waiting(condition, 5):
                assert len(condition._waves._waiting) == 6
        assert len(condition._waves._waiting) == 1


async def test_a_refusal_in_the_first_wave_holds_the_rest_back(fleet: Fleet) -> None:
    condition = fleet.worker()
    condition.pause(0.05)
    async with waiting(condition, 20) as lines:
        await until(lines[0].done)
        assert (condition.is_clear, condition.is_blocked) == (False, False)
        condition.tell(response(429, 30), time.monotonic())
        assert (condition.is_clear, condition.is_blocked) == (False, True)
        await asyncio.wait(lines, timeout=0.2)
        assert sum(line.done() for line in lines) < 20


async def test_failures_in_a_row_open_the_circuit_and_one_line_probes(fleet: Fleet) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 3) as lines:
        assert condition.unavailable_s <= 1.3
        fleet.pass_time(5)
        await until(lines[0].done)
        assert lines[0].result() is True
        assert [line.done() for line in lines[1:]] == [False, False]
        condition.tell(OK, time.monotonic())
        async with asyncio.timeout(BOUND_S):
            assert await asyncio.gather(*lines[1:]) == [False, False]
    await until(lambda: condition.is_clear)
    assert fleet.known().open_until == 0


async def test_a_probe_that_fails_opens_the_circuit_again(fleet: Fleet) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 2) as lines:
        fleet.pass_time(5)
        await until(lines[0].done)
        condition.tell(TIMED_OUT, time.monotonic())
        await until(lambda: fleet.known().opens == 2)
        assert not lines[1].done()
        fleet.pass_time(5)
        await until(lines[1].done)
        assert lines[1].result() is True


async def test_of_two_workers_one_probes_and_both_go_on(fleet: Fleet) -> None:
    one, other = fleet.worker("a"), fleet.worker("b")
    await opened(fleet, one)
    async with waiting(one, 1) as (first,), waiting(other, 1) as (second,):
        fleet.pass_time(5)
        await until(lambda: first.done() or second.done())
        prober, waiter = (one, second) if first.done() else (other, first)
        await until(lambda: bool(fleet.known().probe))
        fleet.look()
        assert not waiter.done()
        prober.tell(OK, time.monotonic())
        await until(lambda: fleet.known().open_until == 0)
        fleet.look()
        async with asyncio.timeout(BOUND_S):
            assert await waiter is False


@pytest.mark.parametrize("result", [None, response(400, is_unsent=True)])
async def test_a_probe_of_which_nothing_is_learned_is_the_next_line_s(fleet: Fleet, result: Response | None) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 2) as lines:
        fleet.pass_time(5)
        await until(lines[0].done)
        if result:
            condition.tell(result, time.monotonic())
        else:
            condition.let_go()
        await until(lines[1].done)
        assert lines[1].result() is True


async def test_a_probe_that_is_refused_pauses_and_the_next_one_follows_the_pause(fleet: Fleet) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 2) as lines:
        fleet.pass_time(5)
        await until(lines[0].done)
        condition.tell(response(429, 0.3), time.monotonic())
        async with asyncio.timeout(BOUND_S):
            assert await lines[1] is True
    assert fleet.known().opens == 1


async def test_who_is_cancelled_with_the_probe_in_hand_lets_it_go(fleet: Fleet) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 2) as lines:
        fleet.at_next_run = lines[0].cancel
        fleet.pass_time(5)
        await until(lines[1].done)
        assert lines[0].cancelled()
        assert lines[1].result() is True


async def test_nobody_probes_where_nobody_waits_and_the_first_who_comes_does(fleet: Fleet) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 1):
        pass
    fleet.pass_time(5)
    told = fleet.told
    async with asyncio.timeout(BOUND_S):
        assert await condition.clear() is True
    assert (fleet.told, fleet.known().probe) == (told + 1, "a")


async def test_a_prober_that_lives_keeps_its_probe(fleet: Fleet) -> None:
    condition = fleet.worker()
    await opened(fleet, condition)
    async with waiting(condition, 1) as (line,):
        fleet.pass_time(5)
        await until(line.done)
        fleet.pass_time(10)
        condition.keep_probe()
        await until(lambda: fleet.known().probe_until - fleet.known().now > 10)
        told = fleet.told
        condition.tell(OK, time.monotonic())
        condition.keep_probe()
        await until(lambda: fleet.known().open_until == 0)
        assert fleet.told == told + 1


async def test_failures_of_requests_sent_before_the_circuit_opened_are_not_told(fleet: Fleet) -> None:
    condition, sent_at = fleet.worker(), time.monotonic()
    await opened(fleet, condition)
    told = fleet.told
    for _ in range(50):
        condition.tell(REFUSED, sent_at)
    fleet.pass_time(5)
    async with asyncio.timeout(BOUND_S):
        assert await condition.clear() is True
    assert fleet.told == told + 1


@pytest.mark.parametrize(("result", "counted"), [(response(500), 1), (REFUSED, 5)])
async def test_a_status_that_a_retry_meets_again_is_the_line_s_own_fault(
    fleet: Fleet, result: Response | ProviderError, counted: int
) -> None:
    condition = fleet.worker()
    for is_retry in (False, True, True, True, True):
        condition.tell(result, time.monotonic(), is_retry=is_retry)
    await until(lambda: fleet.known().failures == counted)


async def test_lines_that_have_all_failed_once_count_when_they_fail_again(fleet: Fleet) -> None:
    condition, lines = fleet.worker(), [LineUnderWay(Shard("batch_x", "p", 0), index) for index in range(5)]
    for _ in range(2):
        condition.tell(OK, time.monotonic())  # the last answers of before the breakdown
        await until(lambda: fleet.known().failures == 0 and fleet.known().answered_at > 0)
        for line in lines:
            condition.tell(response(500), time.monotonic(), is_retry=line.has_failed_again)
            line.tried(Attempt(500, 1.0))
        await until(lambda: fleet.known().failures == 5)


async def test_a_provider_is_given_up_while_its_circuit_is_open_but_not_while_it_is_probed(fleet: Fleet) -> None:
    condition, patient = fleet.worker("a", give_up_after_s=60), fleet.worker("b")
    await opened(fleet, condition)
    assert condition.given_up is None
    async with waiting(condition, 2) as lines:
        fleet.pass_time(61)
        assert condition.given_up is None
        await until(lines[0].done)
        condition.tell(REFUSED, time.monotonic())
        await until(lambda: condition.given_up is not None)
        assert condition.given_up == "Provider p has not answered for 60 s: connection refused."
        assert patient.given_up is None
        assert not lines[1].done()
        fleet.pass_time(5)
        await until(lines[1].done)
        condition.tell(OK, time.monotonic())
        await until(lambda: condition.is_clear)
    assert condition.given_up is None


async def test_what_is_told_while_redis_is_away_is_told_when_it_is_back(fleet: Fleet) -> None:
    condition = fleet.worker()
    fleet.is_away = True
    for _ in range(4):
        condition.tell(TIMED_OUT, time.monotonic())
    condition.tell(response(429, 30), time.monotonic())
    await asyncio.sleep(0)
    assert key_names(fleet.state) == set()
    fleet.is_away = False
    await until(lambda: fleet.known().pause_until > 0 and fleet.known().answered_at > 0)


async def test_late_news_does_not_undo_what_was_said_since_but_a_clock_set_back_does_not_deafen(fleet: Fleet) -> None:
    condition = fleet.worker()
    before = fleet.known()
    fleet.state.run(conditions.paused("p", 0, 30, reason="HTTP 429", is_well=True))
    fleet.look()
    condition.hear(before)
    assert not condition.is_clear
    fleet.state.run(Call(("DEL", KEY), int))
    condition.hear(type(before)("p", now=before.now - 3_600))
    assert condition.is_clear


@pytest.mark.parametrize(
    ("former", "event", "expected"),
    [
        (Failed(1, 2, "x", is_probe=True), Failed(5, 1, "y", is_probe=False), Failed(5, 3, "y", is_probe=True)),
        (Answered(5, is_probe=True), Answered(1, is_probe=False), Answered(5, is_probe=True)),
        (Paused(1, 9, "x", is_well=True), Paused(2, None, "y", is_well=False), Paused(2, 9, "y", is_well=True)),
        (Paused(1, None, "x", is_well=False), Paused(1, None, "y", is_well=False), Paused(1, None, "y", is_well=False)),
        (Probe.KEEP, Probe.LET_GO, Probe.LET_GO),
    ],
)
def test_two_events_of_a_kind_are_told_as_one(former: Event, event: Event, expected: Event) -> None:
    assert joined(former, event) == expected


def test_a_tally_counts_what_becomes_of_requests_and_how_many_were_sent_of_late() -> None:
    now = 0.0
    tally = Tally(lambda: now)
    for result in (OK, response(429), response(500), REFUSED, TIMED_OUT):
        tally.began()
        tally.ended(result)
    tally.began()
    tally.began()
    tally.dropped()
    now = 2
    report = tally.report("w", waiting=3, permits=4)
    assert (report.worker, report.waiting, report.permits) == ("w", 3, 4)
    assert (report.in_flight, report.sent, report.refused, report.failed) == (1, 7, 1, 3)
    assert (report.rate_per_minute, report.token_rate_per_minute) == (210, 30 * OK.usage.total_tokens)
    for _ in range(30):
        now += 1
        report = tally.report("w", waiting=0, permits=4)
    assert (report.rate_per_minute, report.token_rate_per_minute) == (0, 0)
