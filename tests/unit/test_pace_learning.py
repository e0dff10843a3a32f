"""Limits that a provider states in its answers are kept by the whole fleet; in virtual time, with the real scripts."""

from __future__ import annotations

import asyncio

from tests.unit.paced_fleet import MINUTE_S, Fleet, play, provider
from workers.providers.seam import StatedLimit
from workers.rates import Rates


def requests(limit: float) -> StatedLimit:
    return StatedLimit("requests", MINUTE_S, limit)


def test_what_an_answer_states_holds_here_at_once_and_in_the_fleet_soon() -> None:
    async def scene() -> None:
        async with Fleet(provider(), workers=2) as fleet:
            assert fleet.paces[1].is_free("m")
            await asyncio.sleep(0.5)
            fleet.paces[0].learn("m", [requests(60)])
            assert not fleet.paces[0].is_free("m")
            assert fleet.paces[0].is_free("another")
            await asyncio.sleep(2.1)
            assert not fleet.paces[1].is_free("m")
            assert fleet.paces[1].rates() == Rates(60, None)
            await fleet.send_all(6)
            assert min(fleet.gaps) >= 1

    play(scene())


def test_a_limit_that_is_stated_again_and_again_costs_nothing() -> None:
    async def scene() -> None:
        async with Fleet(provider()) as fleet:
            fleet.paces[0].learn("m", [requests(60)])
            await asyncio.sleep(0.1)
            calls = fleet.calls
            for _ in range(1_000):
                fleet.paces[0].learn("m", [requests(60)])
            await asyncio.sleep(1)
            assert fleet.calls == calls == 1

    play(scene())


def test_a_limit_that_changes_is_followed_and_one_that_changes_all_the_time_makes_few_commands() -> None:
    async def scene() -> None:
        async with Fleet(provider()) as fleet:
            for number in range(1_000):
                fleet.paces[0].learn("m", [requests(60 + number % 2)])
                await asyncio.sleep(0.01)
            assert fleet.paces[0].rates().requests_per_minute == 61
            assert fleet.calls < 50

    play(scene())


def test_a_stated_limit_wins_unless_the_provider_says_a_lower_one() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=60)) as fleet:
            fleet.paces[0].learn("high", [requests(6_000)])
            fleet.paces[0].learn("low", [requests(6)])
            await asyncio.gather(*(fleet.send(model="high") for _ in range(3)))
            assert min(fleet.gaps) >= 1
            await asyncio.gather(*(fleet.send(model="low") for _ in range(2)))
            assert fleet.gaps[-1] >= 10

    play(scene())


def test_no_number_of_models_fills_the_memory() -> None:
    async def scene() -> None:
        async with Fleet(provider()) as fleet:
            for number in range(3_000):
                fleet.paces[0].learn(f"m{number}", [requests(60)])
                fleet.paces[0].is_free(f"m{number}")
            assert not fleet.paces[0].is_free("m0")
            assert fleet.paces[0].is_free("m2999")
            fleet.paces[0].learn("m" * 1_000, [requests(60)])
            assert fleet.paces[0].is_free("m" * 1_000)

    play(scene())


def test_a_provider_that_nobody_uses_costs_nothing() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=60)) as fleet:
            await fleet.send_all(3)
            await asyncio.sleep(100)
            calls = fleet.calls
            await asyncio.sleep(1_000)
            assert fleet.calls == calls

    play(scene())
