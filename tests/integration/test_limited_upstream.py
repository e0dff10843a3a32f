"""That the tests' limited server refuses what it says, and remembers what it asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, get_args

import aiohttp
import pytest

from tests.limited_upstream import Capacity, LimitedUpstream, Outage, Pause, Refusal, Terms
from tests.limits import Limit
from tests.upstream import Rule, serving

if TYPE_CHECKING:
    from collections.abc import Mapping

NEVER_AGAIN_S = 600.0


async def ask(upstream: LimitedUpstream, count: int, at_once: int = 1) -> list[tuple[int, Mapping[str, str], str]]:
    """Send so many requests, and give each answer's status, headers and text."""
    free = asyncio.Semaphore(at_once)

    async def send(number: int) -> tuple[int, Mapping[str, str], str]:
        body = {"model": "m", "messages": [{"role": "user", "content": f"<{number}>"}]}
        async with free, session.post(f"{upstream.url}/chat/completions", json=body) as answer:
            return answer.status, answer.headers, await answer.text()

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*map(send, range(count)))


def statuses(answers: list[tuple[int, Mapping[str, str], str]]) -> list[int]:
    return [status for status, _, _ in answers]


async def test_what_is_past_a_limit_is_refused_with_the_time_to_wait() -> None:
    terms = Terms(
        limits=(Limit(kind="sliding", limit=3, window_s=NEVER_AGAIN_S),), retry_after="seconds", stated="openai"
    )
    with serving(LimitedUpstream(terms)) as upstream:
        answers = await ask(upstream, 5)
    assert statuses(answers) == [200, 200, 200, 429, 429]
    assert [headers["x-ratelimit-remaining-requests"] for _, headers, _ in answers] == ["2", "1", "0", "0", "0"]
    assert [headers.get("retry-after") for _, headers, _ in answers] == [None, None, None, "600", "600"]
    assert upstream.refused == len(upstream.asked) == 2
    assert [seen.status for seen in upstream.requests] == [200, 200, 200, 429, 429]


async def test_tokens_are_counted_as_they_are_reported() -> None:
    limit = Limit(kind="bucket", limit=200, window_s=NEVER_AGAIN_S, unit="tokens")
    with serving(LimitedUpstream(Terms(limits=(limit,), output_tokens=(70, 70)))) as upstream:
        answers = await ask(upstream, 3)
    assert statuses(answers) == [200, 200, 429]
    assert '"completion_tokens":70' in answers[0][2]


async def test_a_pause_begins_after_so_many_requests() -> None:
    terms = Terms(pauses=(Pause(after=2, for_s=NEVER_AGAIN_S),), retry_after="ms")
    with serving(LimitedUpstream(terms)) as upstream:
        assert statuses(await ask(upstream, 4)) == [200, 200, 429, 429]
    (first, second) = upstream.asked
    assert first.until == pytest.approx(second.until, abs=0.01)
    assert first.until - first.at == pytest.approx(NEVER_AGAIN_S, abs=1)


async def test_an_outage_happens_to_every_request() -> None:
    outage = Outage(Rule(status=502, fault="html"), for_s=NEVER_AGAIN_S)
    with serving(LimitedUpstream(Terms(outages=(outage,)))) as upstream:
        ((status, headers, _),) = await ask(upstream, 1)
    assert (status, headers["content-type"]) == (502, "text/html")


@pytest.mark.parametrize("refusal", get_args(Refusal))
async def test_requests_beyond_places_and_queue_are_refused(refusal: Refusal) -> None:
    capacity = Capacity(places=2, waiting=1, refusal=refusal)
    with serving(LimitedUpstream(Terms(capacity=capacity, latency_s=(0.2, 0.2)))) as upstream:
        answers = await ask(upstream, 5, at_once=5)
    assert sorted(statuses(answers)) == [200, 200, 200, refusal, refusal]
    taken = sorted(seen.ended_s - seen.started_s for seen in upstream.requests if seen.status == 200 and seen.ended_s)
    assert taken[0] >= 0.2
    assert taken[2] >= 0.3  # it waited for a place


async def test_a_server_that_slows_takes_longer_the_more_it_holds() -> None:
    capacity = Capacity(places=1, slows=True)
    with serving(LimitedUpstream(Terms(capacity=capacity, latency_s=(0.1, 0.1)))) as upstream:
        await ask(upstream, 3, at_once=3)
    taken = sorted(seen.ended_s - seen.started_s for seen in upstream.requests if seen.ended_s)
    assert taken[2] >= 0.3
