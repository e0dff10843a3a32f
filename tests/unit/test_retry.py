from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.contract import NO_USAGE
from workers.providers import ProviderError, Response
from workers.retry import Decision, Done, GiveUp, Policy, Retry, decide

POLICY = Policy()


def response(status_code: int, retry_after_s: float | None = None) -> Response:
    return Response(status_code, b"{}", "", NO_USAGE, retry_after_s, latency_ms=1.0, ttfb_ms=1.0)


TIMEOUT = ProviderError("request_timeout", "too slow")


@pytest.mark.parametrize("status_code", [200, 201, 204, 302, 400, 401, 403, 404, 413, 422, 499])
def test_an_answer_that_another_attempt_would_not_change_stands(status_code: int) -> None:
    assert decide(POLICY, 1, response(status_code), 0.5, 0.0) == Done()


@pytest.mark.parametrize("status_code", [408, 409, 429, 500, 501, 502, 503, 504, 529, 599])
def test_a_status_that_may_pass_is_sent_again(status_code: int) -> None:
    assert decide(POLICY, 1, response(status_code), 0.5, 0.0) == Retry(0.25)


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("connection_error", "refused"),
        ProviderError("request_timeout", "too slow"),
        ProviderError("invalid_response", "cut short"),
        ProviderError("provider_error", "overloaded inside a success"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_without_an_answer_is_sent_again(error: ProviderError) -> None:
    assert decide(POLICY, 1, error, 0.5, 0.0) == Retry(0.25)


@pytest.mark.parametrize(("attempt", "longest_s"), [(1, 0.5), (2, 1), (3, 2), (7, 32), (8, 60), (9, 60), (10**9, 60)])
def test_the_longest_delay_doubles_up_to_the_cap(attempt: int, longest_s: float) -> None:
    patient = Policy(max_attempts=10**10)
    assert decide(patient, attempt, TIMEOUT, 0.0, 0.0) == Retry(0.0)
    assert decide(patient, attempt, TIMEOUT, 0.5, 0.0) == Retry(longest_s / 2)


def test_jitter_comes_on_top_of_the_delay_that_the_provider_asks_for() -> None:
    assert decide(POLICY, 1, response(429, retry_after_s=7.0), 0.0, 0.0) == Retry(7.0)
    assert decide(POLICY, 1, response(429, retry_after_s=7.0), 0.5, 0.0) == Retry(7.25)


def test_an_error_inside_a_success_can_ask_for_a_delay() -> None:
    assert decide(POLICY, 1, ProviderError("provider_error", "busy", retry_after_s=3.0), 0.0, 0.0) == Retry(3.0)


def test_a_provider_that_asks_for_too_long_a_wait_ends_the_line_and_the_reason_says_so() -> None:
    assert decide(POLICY, 1, response(429, retry_after_s=600.0), 0.0, 0.0) == Retry(600.0)
    given_up = decide(POLICY, 1, response(429, retry_after_s=3600.0), 0.0, 0.0)
    assert given_up == GiveUp("The provider asked to wait 3600 s; the most is 600 s.")


def test_the_last_attempt_ends_the_line_even_if_the_provider_asks_for_more() -> None:
    assert isinstance(decide(POLICY, 4, response(429, retry_after_s=1.0), 0.5, 0.0), Retry)
    assert decide(POLICY, 5, response(429, retry_after_s=1.0), 0.5, 0.0) == GiveUp("It failed in all of 5 attempts.")


def test_no_attempt_begins_after_the_longest_time() -> None:
    hurried = Policy(max_elapsed_s=10.0)
    assert decide(hurried, 1, response(503, retry_after_s=4.0), 0.0, 6.0) == Retry(4.0)
    assert isinstance(decide(hurried, 1, response(503, retry_after_s=4.0), 0.0, 6.1), GiveUp)


outcomes = st.one_of(
    st.builds(response, st.integers(100, 999), st.none() | st.floats(0, 1e9)),
    st.builds(ProviderError, st.just("connection_error"), st.just(""), st.none() | st.floats(0, 1e9)),
)
policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 100),
    base_s=st.floats(0, 10),
    cap_s=st.floats(0, 1000),
    max_retry_after_s=st.floats(0, 1e4),
    max_elapsed_s=st.floats(0, 1e6),
)
randoms = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, 10**6), outcomes, randoms, st.floats(0, 1e6))
def test_a_delay_is_never_negative_too_short_or_too_long(
    policy: Policy, attempt: int, outcome: Response | ProviderError, random: float, elapsed_s: float
) -> None:
    decision = decide(policy, attempt, outcome, random, elapsed_s)
    if isinstance(decision, Retry):
        floor_s = outcome.retry_after_s or 0.0
        assert 0.0 <= floor_s <= decision.after_s <= floor_s + policy.cap_s
        assert floor_s <= policy.max_retry_after_s
        assert elapsed_s + decision.after_s <= policy.max_elapsed_s
        assert attempt < policy.max_attempts


@given(policies, outcomes, randoms)
def test_every_line_ends(policy: Policy, outcome: Response | ProviderError, random: float) -> None:
    attempt, elapsed_s = 0, 0.0
    decision: Decision = Retry(0.0)
    while isinstance(decision, Retry):
        attempt += 1
        assert attempt <= policy.max_attempts
        elapsed_s += decision.after_s
        decision = decide(policy, attempt, outcome, random, elapsed_s)
