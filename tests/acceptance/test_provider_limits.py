"""Whole runs against servers with limits of every kind: the limits are kept, and each line is answered once.

A minute of these servers is some seconds long, so that a run meets its borders: `sliding(100, 2)` is 3,000 a minute.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.acceptance.obedience import (
    assert_all_answered,
    assert_answered_once,
    assert_hardly_refused,
    assert_pauses_kept,
    write_lines,
)
from tests.limited_upstream import Capacity, LimitedUpstream, Pause, Terms
from tests.limits import Limit
from tests.upstream import serving

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder
    from tests.limits import Kind, Wording

IN_FLIGHT = 32
MAX_ATTEMPTS = 5
TOKENS = (50, 150)
"""What answers cost, besides the 94 tokens of each request."""


class Case(NamedTuple):
    """A server's terms, what the providers file says of it, and the run."""

    terms: Terms
    stated: dict[str, Any]
    lines: int
    workers: int = 1


def requests(kind: Kind, limit: float, window_s: float, **more: Any) -> Limit:
    return Limit(kind=kind, limit=limit, window_s=window_s, **more)


def tokens(kind: Kind, limit: float, window_s: float, **more: Any) -> Limit:
    return requests(kind, limit, window_s, unit="tokens", **more)


RATES = {
    "a fixed minute and its seconds": Case(
        Terms(limits=(requests("fixed", 150, 3), requests("fixed", 50, 1)), retry_after="seconds"),
        {"requests_per_minute": 3000},
        lines=200,
    ),
    "a sliding minute": Case(
        Terms(limits=(requests("sliding", 150, 3),), retry_after="ms"), {"requests_per_minute": 3000}, 200, workers=2
    ),
    "a bucket with a small burst": Case(
        Terms(limits=(requests("bucket", 150, 3, burst=8),)), {"requests_per_minute": 3000}, lines=200
    ),
    "tokens in a sliding minute": Case(
        Terms(limits=(tokens("sliding", 30_000, 3),), retry_after="date", output_tokens=TOKENS),
        {"tokens_per_minute": 600_000},
        lines=200,
        workers=2,
    ),
    "tokens from a bucket, and requests": Case(
        Terms(
            limits=(tokens("bucket", 30_000, 3, burst=5_000), requests("sliding", 180, 3)),
            retry_after="ms",
            output_tokens=TOKENS,
        ),
        {"tokens_per_minute": 600_000, "requests_per_minute": 3600},
        lines=200,
    ),
    "what OpenAI's headers state": Case(
        Terms(limits=(requests("bucket", 150, 3),), retry_after="seconds", stated="openai"), {}, lines=300, workers=2
    ),
    "what Anthropic's headers state": Case(
        Terms(limits=(tokens("bucket", 30_000, 3),), stated="anthropic", output_tokens=TOKENS),
        {"rate_headers": "anthropic"},
        lines=300,
    ),
}


@pytest.mark.parametrize("case", RATES.values(), ids=RATES)
def test_a_rate_is_kept_and_hardly_a_request_refused(folder: Folder, case: Case) -> None:
    upstream = run(folder, case)
    assert_hardly_refused(upstream)
    assert_pauses_kept(upstream)


@pytest.mark.parametrize(("wording", "workers"), [("seconds", 1), ("date", 2)])
def test_nothing_is_sent_while_the_provider_asks_to_be_left_alone(
    folder: Folder, wording: Wording, workers: int
) -> None:
    pauses = (Pause(after=60, for_s=1.5), Pause(after=150, for_s=1.0))
    terms = Terms(pauses=pauses, retry_after=wording, latency_s=(0.02, 0.08))
    upstream = run(folder, Case(terms, {"max_concurrency": IN_FLIGHT, "max_attempts": 1}, 200, workers))
    assert_pauses_kept(upstream)
    assert len(pauses) <= upstream.refused <= len(pauses) * IN_FLIGHT


CAPACITIES = {
    "refuses with 429": Capacity(places=20),
    "has a queue": Capacity(places=20, waiting=40, refusal=503),
    "slows": Capacity(places=20, slows=True),
}


@pytest.mark.parametrize("capacity", CAPACITIES.values(), ids=CAPACITIES)
def test_an_unknown_capacity_loses_no_line(folder: Folder, capacity: Capacity) -> None:
    upstream = run(folder, Case(Terms(capacity=capacity, latency_s=(0.05, 0.15)), {}, lines=300))
    sent = Counter(seen.body for seen in upstream.requests if seen.status != 429)
    assert max(sent.values()) <= MAX_ATTEMPTS


def run(folder: Folder, case: Case) -> LimitedUpstream:
    """Run a case to its end, and give its server, which has answered each line once."""
    write_lines(folder, case.lines)
    with serving(LimitedUpstream(case.terms)) as upstream:
        folder.write_provider(upstream.url, **case.stated)
        ended = folder.run("--workers", str(case.workers))
    assert_all_answered(folder, ended, case.lines)
    assert_answered_once(upstream, case.lines)
    return upstream
