"""What a line passes before it is sent, and which of several providers takes it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from batchord.contract import Usage
from batchord.routing import ModelLimits, Provider, Routes, Way, Ways
from tests.unit.fake_state import FakeState
from workers.choice import enter, given_up, usable_ways
from workers.condition import Condition
from workers.draining import Draining
from workers.gate import Gate, Passage, abandon
from workers.lanes import lanes
from workers.pace import Pace
from workers.permits import Permits
from workers.providers import ProviderError, Response
from workers.providers.seam import StatedLimit
from workers.reporting import Tally
from workers.samples import Samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.state.calls import Call

T = TypeVar("T")

BOUND_S = 20
BODY = b'{"model":"m","messages":[]}'
OK = Response(200, b"{}", "", Usage(10, 0, 5, 0, 15), None, 1, 1)
REFUSED = ProviderError("connection_error", "connection refused", is_unsent=True)


def provider(name: str = "a", **given: object) -> Provider:
    return Provider.model_validate({"name": name, "kind": "simulated", "rate_headers": "none", **given})


@asynccontextmanager
async def gates(*providers: Provider, permits: int = 2) -> AsyncIterator[dict[str, Gate]]:
    """Give a gate for each provider, with so many permits in every lane, on a Redis of their own."""
    state = FakeState()

    async def run(call: Call[T]) -> T:
        return state.run(call)

    made: dict[str, Gate] = {}
    for config in providers:
        own = {lane: Permits(permits) for lane in lanes(config)}
        condition, pace = Condition(config, "w", run, give_up_after_s=600), Pace(config, run)
        made[config.name] = Gate(config, condition, pace, Samples(own[config.name]), Tally(), own)
    try:
        yield made
    finally:
        for gate in made.values():
            gate.condition.close()
            await gate.pace.aclose()


async def entered(gate: Gate, model: str = "m") -> Passage:
    return await asyncio.wait_for(gate.enter(model, BODY), BOUND_S)


def sent(passage: Passage, result: Response | ProviderError = OK) -> None:
    passage.send()
    passage.sent(result)


def paused(gate: Gate, seconds: float = 600) -> None:
    gate.condition.pause(seconds)


async def test_a_permit_is_held_from_the_passage_to_the_answer() -> None:
    async with gates(provider(), permits=1) as at:
        passage = await entered(at["a"])
        assert at["a"].try_enter("m", BODY) is None
        sent(passage)
        assert at["a"].try_enter("m", BODY) is not None


async def test_a_model_with_a_limit_of_its_own_needs_a_permit_of_both() -> None:
    async with gates(provider(limits={"big*": ModelLimits(max_concurrency=1)}), permits=1) as at:
        at["a"].permits["a"].resize(5)
        first = await entered(at["a"], "big-1")
        assert at["a"].try_enter("big-2", BODY) is None
        assert at["a"].held == 1
        assert at["a"].try_enter("small", BODY) is not None
        first.leave()
        assert at["a"].try_enter("big-2", BODY) is not None


async def test_who_stops_waiting_gives_back_what_it_had() -> None:
    async with gates(provider(limits={"*": ModelLimits(max_concurrency=1)}), permits=1) as at:
        at["a"].permits["a"].resize(5)
        first = await entered(at["a"])
        waiting = asyncio.create_task(at["a"].enter("m", BODY))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        first.leave()
        assert at["a"].held == 0
        assert at["a"].try_enter("m", BODY) is not None


async def test_a_passage_that_comes_when_nobody_waits_any_more_is_given_back() -> None:
    async with gates(provider(), permits=1) as at:
        entering = asyncio.create_task(at["a"].enter("m", BODY))
        await asyncio.wait([entering])
        abandon(entering)
        await asyncio.sleep(0)
        assert at["a"].held == 0


async def test_a_pause_closes_a_passage_that_was_given_before() -> None:
    async with gates(provider()) as at:
        passage = await entered(at["a"])
        assert passage.is_open
        paused(at["a"])
        assert not passage.is_open


async def test_a_line_enters_once_the_pause_is_over() -> None:
    async with gates(provider()) as at:
        paused(at["a"], 0.05)
        assert at["a"].try_enter("m", BODY) is None
        assert (await entered(at["a"])).is_open


@pytest.mark.parametrize(
    ("result", "is_clear"),
    [
        (OK, True),
        (replace(OK, status_code=429, body=b'{"error":{"code":"rate_limit_exceeded"}}'), False),
        (replace(OK, status_code=429, body=b'{"error":{"code":"insufficient_quota"}}'), True),
        (replace(OK, stated=(StatedLimit("requests", 86_400, 100, 0, 5.0),)), False),
        (replace(OK, stated=(StatedLimit("requests", 60, None, 0, 5.0),)), False),
        (replace(OK, stated=(StatedLimit("requests", 60, 100, 0, 5.0),)), True),
        (replace(OK, stated=(StatedLimit("requests", 86_400, 100, 1, 5.0),)), True),
    ],
    ids=["success", "too fast", "no quota", "no day left", "nothing left", "kept by the pace", "one left"],
)
async def test_an_answer_may_pause_the_provider(result: Response, is_clear: bool) -> None:
    async with gates(provider()) as at:
        sent(await entered(at["a"]), result)
        assert at["a"].condition.is_clear is is_clear


async def test_tokens_are_corrected_by_what_was_used_and_given_back_by_who_does_not_send() -> None:
    async with gates(provider(tokens_per_minute=60_000)) as at:
        first = await entered(at["a"])
        assert first.tokens > 256
        sent(first)
        second = await entered(at["a"])
        assert second.tokens == 15
        second.leave()
        assert at["a"].held == 0


async def test_what_becomes_of_a_probe_says_nothing_of_how_many_requests_there_is_room_for() -> None:
    async with gates(provider(), permits=4) as at:
        at["a"].permits["a"].is_gradual = True
        sent(await at["a"].take("m", BODY, is_probe=True), replace(OK, status_code=503))
        assert (at["a"].held, at["a"].permits["a"].limit, at["a"].samples.in_flight) == (0, 4, 0)
        assert at["a"].samples.take().troubled == 0


WAYS = Ways((Way("a", "m"), Way("b", "m")), (Way("c", "other"),))
PEERS = (provider("a", weight=1), provider("b", weight=3), provider("c"))


async def test_who_waits_for_the_end_of_a_pause_is_reported_as_waiting() -> None:
    async with gates(provider()) as at:
        passage = await entered(at["a"])
        passage.send()
        paused(at["a"])
        lines = [asyncio.create_task(at["a"].enter("m", BODY)) for _ in range(3)]
        await asyncio.sleep(0)
        assert (at["a"].report("w").waiting, at["a"].report("w").in_flight) == (3, 1)
        for line in lines:
            line.cancel()
        await asyncio.wait(lines)
        passage.sent(OK)


async def test_a_limit_that_an_answer_states_is_reported_as_the_one_in_force() -> None:
    async with gates(provider(requests_per_minute=600, rate_headers="openai")) as at:
        passage = at["a"].try_enter("m", BODY) or await at["a"].take("m", BODY)
        assert at["a"].report("w").requests_per_minute == 600
        passage.send()
        passage.sent(replace(OK, stated=(StatedLimit("tokens", 60, 9_000), StatedLimit("requests", 1, 5))))
        report = at["a"].report("w")
        assert (report.requests_per_minute, report.tokens_per_minute) == (300, 9_000)
        await at["a"].pace.aclose()


async def test_peers_share_by_weight() -> None:
    async with gates(*PEERS, permits=100) as at:
        passages = [await enter(at, WAYS, BODY) for _ in range(40)]
        by = [passage.provider for passage in passages]
        assert (by.count("a"), by.count("b"), by.count("c")) == (10, 30, 0)


async def test_the_peer_that_answers_faster_takes_more() -> None:
    async with gates(*PEERS, permits=2) as at:
        held = [await enter(at, WAYS, BODY) for _ in range(4)]
        waiting = asyncio.create_task(enter(at, WAYS, BODY))
        await asyncio.sleep(0)
        next(passage for passage in held if passage.provider == "a").leave()
        assert (await asyncio.wait_for(waiting, BOUND_S)).provider == "a"
        assert (at["a"].held, at["b"].held) == (2, 2)


async def test_a_fallback_takes_what_no_peer_can_serve_now_under_its_own_name_of_the_model() -> None:
    async with gates(*PEERS) as at:
        paused(at["a"])
        assert (await enter(at, WAYS, BODY)).provider == "b"
        paused(at["b"])
        passage = await enter(at, WAYS, BODY)
        assert (passage.provider, passage.model) == ("c", "other")


async def test_a_short_pause_is_waited_for() -> None:
    async with gates(*PEERS) as at:
        paused(at["a"], 0.05)
        paused(at["b"], 0.05)
        assert (await enter(at, WAYS, BODY)).provider in {"a", "b"}


async def test_where_all_are_out_the_first_to_be_back_is_taken() -> None:
    async with gates(*PEERS) as at:
        for name in at:
            paused(at[name])
        assert [way.provider for way in usable_ways(at, WAYS)] == ["a", "b", "c"]
        waiting = asyncio.create_task(enter(at, WAYS, BODY))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert [at[name].held for name in at] == [0, 0, 0]


async def test_one_peer_without_a_part_of_its_limit_does_not_turn_a_line_away_from_the_other() -> None:
    async with gates(*PEERS) as at:
        at["a"].permits["a"].resize(0)
        assert (await enter(at, WAYS, BODY)).provider == "b"
        at["b"].permits["b"].resize(0)
        with pytest.raises(Draining):
            await asyncio.wait_for(enter(at, WAYS, BODY), BOUND_S)


async def test_a_line_is_given_up_only_if_everybody_is() -> None:
    routes = Routes([provider("a", fallback=["b"]), provider("b")])
    async with gates(*routes.providers.values()) as at:
        assert given_up(at, routes.ways("a", "m")) is None


async def test_a_provider_out_of_reach_is_left_alone_and_its_fallback_goes_on() -> None:
    async with gates(*PEERS, permits=10) as at:
        ways = Ways((Way("a", "m"),), (Way("c", "m"),))
        async with asyncio.timeout(BOUND_S):
            while (passage := await enter(at, ways, BODY)).provider == "a":
                sent(passage, REFUSED)
                await asyncio.sleep(0.02)
        assert passage.provider == "c"
        assert at["a"].held == 0
        assert at["a"].tally.failed >= 5
