from __future__ import annotations

import pytest

from batchord.contract import NO_USAGE, Usage
from workers.estimates import Estimates


def usage(input_tokens: int, output_tokens: int) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_a_first_request_may_use_all_the_output_that_it_asks_for(name: str) -> None:
    body = b'{"model": "m", "%s": 700}' % name.encode()
    assert Estimates().of("m", body) == round(len(body) / 4) + 700


@pytest.mark.parametrize("body", [b"x" * 400, b'{"max_tokens": null}' + b" " * 380, b'{"max_tokens": -5}' + b" " * 382])
def test_where_nothing_is_known_a_common_length_is_taken(body: bytes) -> None:
    assert Estimates().of("m", body) == 100 + 256


def test_what_answers_reported_replaces_the_guess() -> None:
    estimates = Estimates()
    estimates.learn("m", 1_000, usage(400, 30))
    estimates.learn("m", 1_000, usage(200, 50))
    assert estimates.of("m", b'{"max_tokens": 9999}' + b" " * 1_980) == 600 + 40
    assert estimates.of("another", b"x" * 400) == 100 + 256


def test_the_means_follow_a_change() -> None:
    estimates = Estimates()
    for _ in range(1_000):
        estimates.learn("m", 100, usage(100, 1_000))
    for _ in range(300):
        estimates.learn("m", 100, usage(50, 10))
    assert estimates.of("m", b"x" * 100) == pytest.approx(60, abs=5)


@pytest.mark.parametrize(("body_bytes", "reported"), [(100, NO_USAGE), (0, Usage(5, 0, 5)), (100, usage(-7, 5))])
def test_an_answer_without_a_count_teaches_nothing(body_bytes: int, reported: Usage) -> None:
    estimates = Estimates()
    estimates.learn("m", body_bytes, reported)
    assert estimates.of("m", b"x" * 400) == 100 + 256


def test_memory_is_bounded_and_the_oldest_model_is_forgotten() -> None:
    estimates = Estimates()
    for number in range(1_001):
        estimates.learn(f"m{number}", 100, usage(1, 1))
    assert estimates.of("m0", b"x" * 400) == 100 + 256
    assert estimates.of("m1", b"x" * 400) == 5
