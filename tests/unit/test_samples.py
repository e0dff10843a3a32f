from __future__ import annotations

import pytest

from batchord.contract import Usage
from batchord.state.concurrency import Sample
from workers.permits import Permits
from workers.providers import ProviderError, Response
from workers.samples import Samples


class Bench:
    """Samples of a provider that may have 4 requests in flight, by a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 50.0
        self.permits = Permits(4, gradual=True)
        self.samples = Samples(self.permits, lambda: self.now)

    def one(self, result: Response | ProviderError) -> Sample:
        assert self.permits.try_take()
        self.samples.began()
        self.now += 1.0
        self.samples.ended(result, 1.0)
        self.permits.give_back()
        return self.samples.take()


def response(status: int, body: bytes = b"{}", tokens: int = 0, retry_after_s: float | None = None) -> Response:
    return Response(status, body, "", Usage(output_tokens=tokens), retry_after_s, 1.0, 1.0)


def test_what_is_measured_are_answers_their_work_their_time_and_how_far_the_limit_is_used() -> None:
    bench = Bench()
    bench.samples.began()
    bench.now += 1
    bench.samples.began()
    bench.now += 2
    assert bench.samples.in_flight == 2
    bench.samples.ended(response(200, tokens=80), 3.0)
    bench.samples.ended(response(200), 2.0)
    assert bench.samples.take() == Sample(answers=2, work=120, latency_s=5, busy_s=5, room_s=12)
    assert bench.samples.take() == Sample()


@pytest.mark.parametrize(
    ("result", "throttled", "troubled", "kept"),
    [
        (response(429), 1, 0, 0.25),
        (response(429, b'{"error": {"code": "insufficient_quota"}}'), 0, 0, 1.0),
        (response(503), 0, 1, 0.25),
        (response(529), 0, 1, 0.25),
        (response(500), 0, 1, 1.0),
        (response(408), 0, 1, 1.0),
        (response(400), 0, 0, 1.0),
        (ProviderError("connection_error", ""), 0, 1, 1.0),
        (ProviderError("provider_error", "", retry_after_s=1.0), 1, 0, 1.0),
    ],
)
def test_each_kind_of_trouble_counts_as_what_it_is_and_never_as_an_answer(
    result: Response | ProviderError, throttled: int, troubled: int, kept: float
) -> None:
    expected = Sample(busy_s=1, room_s=4, throttled=throttled, troubled=troubled, kept=kept)
    assert Bench().one(result) == expected._replace(latency_s=troubled)  # the time of a failure brought no work


def test_a_request_of_whose_end_nothing_can_be_learned_is_not_in_flight_any_more() -> None:
    bench = Bench()
    bench.samples.began()
    bench.samples.dropped()
    assert (bench.samples.in_flight, bench.samples.take()) == (0, Sample())


def test_a_worker_that_has_nothing_to_send_says_nothing_of_how_far_the_limit_is_used() -> None:
    bench = Bench()
    bench.now += 60
    assert bench.samples.take() == Sample()


def test_samples_add_up_and_the_least_that_was_kept_counts() -> None:
    one, other = Sample(1, 2.0, 3.0, 4.0, 5.0, 6, 7, 0.5), Sample(10, 20.0, 30.0, 40.0, 50.0, 60, 70, 0.25)
    assert one.plus(other) == other.plus(one) == Sample(11, 22.0, 33.0, 44.0, 55.0, 66, 77, 0.25)
