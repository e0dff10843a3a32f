"""The rule that finds a provider's limit, before simulated servers of unknown capacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from batchord.state.concurrency import Sample
from tests.unit.fake_fleet import (
    Clock,
    Failing,
    Faulty,
    Flaky,
    Fleet,
    Refusing,
    Server,
    Sharing,
    Slowing,
    Unavailable,
    lasting,
    varying,
)
from workers.adaptive import START, Course, advance

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1_000
PLACES = 80
LATENCY_S = (0.1, 0.3)
CAPACITY = PLACES / 0.2


def fleet_before(
    kind: type[Server], places: int, service_s: Callable[[], float], workers: int = 1, most: int = MOST
) -> Fleet:
    clock = Clock()
    return Fleet(clock, kind(clock, places, service_s), workers, most)


def share_of_errors(fleet: Fleet) -> float:
    return 1 - fleet.answered[200] / fleet.answered.total()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", [Server, Refusing, Unavailable, Sharing])
def test_within_30_s_nine_tenths_of_an_unknown_capacity_are_used_and_few_errors_caused(
    kind: type[Server], workers: int
) -> None:
    fleet = fleet_before(kind, PLACES, lasting(workers, *LATENCY_S), workers)
    fleet.clock.run(30)
    assert fleet.rate(40) >= 0.9 * CAPACITY
    assert share_of_errors(fleet) < 0.01


@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_that_each_request_slows_down_is_used_nearly_as_far_as_it_goes(workers: int) -> None:
    fleet = fleet_before(Slowing, 20, lasting(workers, *LATENCY_S), workers)
    fleet.clock.run(30)
    assert fleet.rate(30) >= 0.9 * 20 / 0.2


@pytest.mark.parametrize("kind", [Server, Refusing])
def test_answers_that_take_long_and_vary_by_ten_times_hide_the_capacity_only_for_a_while(kind: type[Server]) -> None:
    fleet = fleet_before(kind, 100, varying(1, mean_s=4.0))
    fleet.clock.run(120)
    assert fleet.rate(300) >= 0.9 * 100 / 4
    assert share_of_errors(fleet) < 0.01


@pytest.mark.parametrize("kind", [Server, Refusing])
def test_a_small_capacity_is_found_too(kind: type[Server]) -> None:
    fleet = fleet_before(kind, 4, lasting(1, *LATENCY_S))
    fleet.clock.run(15)
    assert fleet.rate(30) >= 0.9 * 4 / 0.2


def test_a_server_with_room_for_all_is_given_the_most_that_is_allowed_within_seconds() -> None:
    fleet = fleet_before(Server, 10_000, lasting(1, *LATENCY_S))
    fleet.clock.run(8)
    assert fleet.course.limit == MOST


def test_it_starts_modestly_and_at_first_doubles() -> None:
    fleet = fleet_before(Server, 10_000, lasting(1, *LATENCY_S))
    fleet.clock.run(4)
    assert list(dict.fromkeys(fleet.limits))[:4] == [START, 2 * START, 4 * START, 8 * START]


def test_failures_that_come_by_chance_do_not_keep_it_small() -> None:
    fleet = fleet_before(Faulty, 10_000, lasting(1, 0.5, 1.5), most=256)
    fleet.clock.run(60)
    assert fleet.course.limit == 256


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_failures_that_less_load_does_not_mend_do_not_make_it_collapse(share: float) -> None:
    fleet = fleet_before(Flaky, PLACES, lasting(1, *LATENCY_S))
    fleet.server.share = share  # type: ignore[attr-defined]
    fleet.clock.run(60)
    assert fleet.rate(60) >= 0.9 * (1 - share) * CAPACITY


@pytest.mark.parametrize("places", [4, PLACES])
def test_failures_by_which_a_server_refuses_keep_it_at_its_capacity(places: int) -> None:
    fleet = fleet_before(Failing, places, lasting(1, *LATENCY_S))
    fleet.clock.run(60)
    assert fleet.rate(60) >= 0.9 * places / 0.2
    assert fleet.course.limit <= 1.2 * places + 1


def test_a_server_that_fails_under_load_is_given_less() -> None:
    course = Course(limit=100, base=100, at=10.0)
    assert advance(course, Sample(50, 50.0, 10.0, 9.0, 10.0, troubled=10), 11.0, MOST).limit == 70


def test_a_long_queue_is_shortened_without_loss() -> None:
    fleet = fleet_before(Server, PLACES, lasting(1, *LATENCY_S))
    fleet.course = Course(limit=800, base=800, best=1 / 0.2 * 20, at=fleet.clock.now)
    fleet.clock.run(120)
    assert fleet.course.limit < 400
    assert fleet.rate(30) >= 0.95 * CAPACITY


def test_capacity_that_grows_is_found_again() -> None:
    fleet = fleet_before(Refusing, PLACES, lasting(1, *LATENCY_S))
    fleet.clock.run(30)
    fleet.server.places = 2 * PLACES
    fleet.clock.run(180)
    assert fleet.rate(30) >= 0.9 * 2 * CAPACITY


def test_capacity_that_shrinks_is_noticed() -> None:
    fleet = fleet_before(Refusing, PLACES, lasting(1, *LATENCY_S))
    fleet.clock.run(30)
    fleet.server.places = PLACES // 2
    fleet.clock.run(20)
    assert fleet.course.limit <= PLACES // 2 + 5
    assert fleet.rate(40) >= 0.85 * CAPACITY / 2


@pytest.mark.parametrize("tokens", [0, 500])
def test_requests_that_become_longer_do_not_make_it_collapse(tokens: int) -> None:
    service = lasting(1, *LATENCY_S)
    fleet = fleet_before(Server, 10_000, lambda: (1 + fleet.tokens / 50) * service(), most=128)
    fleet.clock.run(20)
    assert fleet.course.limit == 128
    fleet.server.service_s = lambda: 10 * service()
    fleet.tokens = tokens
    fleet.clock.run(120)
    assert fleet.course.base >= 100


def test_a_batch_that_ends_changes_nothing() -> None:
    fleet = fleet_before(Server, PLACES, lasting(1, *LATENCY_S))
    fleet.clock.run(30)
    before = fleet.course
    fleet.waiting = 20
    fleet.clock.run(20)
    assert fleet.server.in_flight == 0
    assert fleet.course.base == before.base


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    course = Course(limit=16, base=16, at=10.0)
    for second in range(11, 40):
        course = advance(course, Sample(100, 100.0, 20.0, 10.0, 16.0), second, MOST)
    assert course.limit == 16


def test_after_a_minute_without_answers_half_of_the_limit_is_believed() -> None:
    course = Course(limit=200, base=200, at=100.0)
    assert advance(course, Sample(1, 1.0, 1.0, 1.0, 1.0), 161.0, MOST).limit == 100
    assert advance(Course(limit=20, base=20, at=100.0), Sample(1), 161.0, MOST).limit == START
    assert advance(Course(limit=200, base=200, at=100.0), Sample(1), 161.0, 10).limit == 10


def test_a_clock_that_is_set_back_does_not_stop_it() -> None:
    course = advance(Course(limit=200, base=200, at=1e9, hold_until=2e9), Sample(1), 100.0, MOST)
    assert (course.limit, course.hold_until, course.at) == (100, 0.0, 100.0)


@dataclass(frozen=True)
class Refusal:
    """What a cut is made of."""

    course: Course
    kept: float
    limit: int


@pytest.mark.parametrize(
    "case",
    [
        Refusal(Course(limit=128, base=64, at=10.0), 80 / 128, 76),
        Refusal(Course(limit=128, base=64, at=10.0), 0.1, 64),
        Refusal(Course(limit=128, base=128, at=10.0), 1.0, 89),
        Refusal(Course(limit=128, base=128, at=10.0), 0.9, 108),
        Refusal(Course(limit=128, base=128, at=10.0), 0.1, 64),
        Refusal(Course(limit=1, base=1, at=10.0), 1.0, 1),
    ],
)
def test_a_refusal_cuts_the_limit_to_just_below_what_was_taken_and_not_below_what_had_proved_its_worth(
    case: Refusal,
) -> None:
    sample = Sample(10, 200.0, 2.0, 1.0, 1.0, throttled=3, kept=case.kept)
    assert advance(case.course, sample, 11.0, MOST).limit == case.limit


def test_refusals_of_one_moment_that_other_workers_tell_of_count_once_but_say_more() -> None:
    course = Course(limit=128, base=64, at=10.0)
    first = advance(course, Sample(10, throttled=3, kept=0.9), 11.0, MOST)
    second = advance(first, Sample(10, throttled=3, kept=0.6), 11.3, MOST)
    third = advance(second, Sample(10, throttled=3, kept=1.0), 11.6, MOST)
    assert (first.limit, second.limit, third.limit) == (109, 72, 72)


@pytest.mark.parametrize("step", range(40))
def test_the_limit_stays_between_one_and_the_most(step: int) -> None:
    course = Course(limit=1 + step, base=1 + step, at=10.0)
    for turn in range(60):
        is_bad = (turn * 7 + step) % 3 == 0
        sample = Sample(200, 4_000.0, 40.0, 10.0, 10.0, throttled=5 * is_bad, kept=0.5 if is_bad else 1.0)
        course = advance(course, sample, course.at + 10, 50)
        assert 1 <= course.limit <= 50
