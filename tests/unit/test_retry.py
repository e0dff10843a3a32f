from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.contract import NO_USAGE
from workers.providers import ProviderError, Response
from workers.retry import Decision, Done, GiveUp, Policy, Retry, Unable, Wait, decide

POLICY = Policy()


def response(status_code: int, retry_after_s: float | None = None) -> Response:
    return Response(status_code, b"{}", "", NO_USAGE, retry_after_s, latency_ms=1.0, ttfb_ms=1.0)


TIMEOUT = ProviderError("request_timeout", "too slow")


@pytest.mark.parametrize("status_code", [200, 201, 204, 302, 400, 413, 422, 499])
def test_an_answer_that_another_attempt_would_not_change_stands(status_code: int) -> None:
    assert decide(POLICY, 1, response(status_code), 0.5, 0.0) == Done()


@pytest.mark.parametrize("status_code", [401, 402, 403, 404])
def test_a_provider_that_cannot_serve_the_line_at_all_is_not_asked_again(status_code: int) -> None:
    assert decide(POLICY, 1, response(status_code), 0.5, 0.0) == Unable()


@pytest.mark.parametrize("status_code", [408, 409, 500, 501, 502, 503, 504, 529, 599])
def test_a_status_that_may_pass_is_sent_again(status_code: int) -> None:
    assert decide(POLICY, 1, response(status_code), 0.5, 0.0) == Retry(0.25)


@pytest.mark.parametrize("attempt", [1, 5, 1000])
@pytest.mark.parametrize(
    "outcome",
    [response(429), response(429, retry_after_s=9e9), ProviderError("connection_error", "refused", is_unsent=True)],
    ids=["429", "429 for long", "refused"],
)
def test_what_the_provider_has_not_taken_waits_and_is_no_attempt(
    attempt: int, outcome: Response | ProviderError
) -> None:
    assert decide(POLICY, attempt, outcome, 0.5, 1e9) == Wait()


@pytest.mark.parametrize("said", ["insufficient_quota", "Request too large for m on tokens per min (TPM): Limit 1"])
def test_a_refusal_that_waiting_does_not_mend_is_not_sent_again(said: str) -> None:
    refusal = replace(response(429), body=b'{"error":{"message":"%b"}}' % said.encode())
    assert decide(POLICY, 1, refusal, 0.5, 0.0) == Unable()


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("connection_error", "closed without an answer"),
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


def test_a_delay_that_the_provider_asks_for_is_the_pause_of_its_gate() -> None:
    assert decide(POLICY, 1, response(503, retry_after_s=7.0), 0.5, 0.0) == Retry(0.25)
    assert decide(POLICY, 1, ProviderError("provider_error", "busy", retry_after_s=3.0), 0.0, 0.0) == Retry(0.0)


def test_the_last_attempt_ends_the_line() -> None:
    assert isinstance(decide(POLICY, 4, response(503), 0.5, 0.0), Retry)
    assert decide(POLICY, 5, response(503), 0.5, 0.0) == GiveUp("It failed in all of 5 attempts.")


def test_no_attempt_begins_after_the_longest_time() -> None:
    hurried = Policy(max_elapsed_s=10.0)
    assert decide(hurried, 4, response(503), 0.5, 8.0) == Retry(2.0)
    assert isinstance(decide(hurried, 4, response(503), 0.5, 8.1), GiveUp)


outcomes = st.one_of(
    st.builds(response, st.integers(100, 999), st.none() | st.floats(0, 1e9)),
    st.builds(ProviderError, st.just("connection_error"), st.just(""), st.none() | st.floats(0, 1e9)),
)
policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 100),
    base_s=st.floats(0, 10),
    cap_s=st.floats(0, 1000),
    max_elapsed_s=st.floats(0, 1e6),
)
randoms = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, 10**6), outcomes, randoms, st.floats(0, 1e6))
def test_a_delay_is_never_negative_or_too_long(
    policy: Policy, attempt: int, outcome: Response | ProviderError, random: float, elapsed_s: float
) -> None:
    decision = decide(policy, attempt, outcome, random, elapsed_s)
    if isinstance(decision, Retry):
        assert 0.0 <= decision.after_s <= policy.cap_s
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
