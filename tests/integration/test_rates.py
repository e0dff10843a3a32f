"""Several processes' paces at one Valkey, with real clocks: what no virtual time shows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from batchord.routing import Provider
from batchord.state import keys, rates
from batchord.state.calls import Call, mapping
from batchord.state.connection import State
from workers.pace import Pace
from workers.providers.seam import StatedLimit

if TYPE_CHECKING:
    from batchord.embedded import EmbeddedValkey

LIMITED = Provider(name="p", base_url="http://p", requests_per_minute=6_000)
FREE = Provider(name="p", base_url="http://p")


def one_token() -> int:
    return 1


async def test_workers_share_a_rate_and_use_it_up(valkey: EmbeddedValkey) -> None:
    states = [State(valkey.url) for _ in range(3)]
    paces = [Pace(LIMITED, state.run) for state in states]
    sent: list[float] = []

    async def lines(pace: Pace) -> None:
        for _ in range(10):
            await pace.turn("m", one_token)
            sent.append(time.monotonic())

    async with asyncio.timeout(60):
        await asyncio.gather(*(lines(pace) for pace in paces for _ in range(10)))
    for pace, state in zip(paces, states, strict=True):
        await pace.aclose()
        await state.aclose()
    taken = 299 * 60 / 6_000
    assert len(sent) == 300
    assert taken * 0.99 <= max(sent) - min(sent) <= taken * 5  # on a busy machine requests go later, never sooner


async def test_a_learned_limit_reaches_another_worker(valkey: EmbeddedValkey) -> None:
    teller, hearer = State(valkey.url), State(valkey.url)
    one, other = Pace(FREE, teller.run), Pace(FREE, hearer.run)
    one.learn("m", [StatedLimit("requests", 60, 600)])
    async with asyncio.timeout(30):
        while other.is_free("m"):  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.01)
        await asyncio.gather(one.turn("m", one_token), other.turn("m", one_token))
    assert other.rates().requests_per_minute == 600
    for pace, state in ((one, teller), (other, hearer)):
        await pace.aclose()
        await state.aclose()


async def test_a_restarted_redis_without_scripts_or_rates_stops_nobody(valkey: EmbeddedValkey) -> None:
    state = State(valkey.url)
    pace = Pace(LIMITED, state.run)
    async with asyncio.timeout(30):
        await pace.turn("m", one_token)
        await state.run(Call(("SCRIPT", "FLUSH"), bool))
        await state.run(Call(("DEL", keys.rates("p")), bool))
        await asyncio.gather(*(pace.turn("m", one_token) for _ in range(5)))
    assert list(await state.run(Call(("HGETALL", keys.rates("p")), mapping))) == ["requests provider"]
    assert await state.run(rates.learn("p")) == []
    await pace.aclose()
    await state.aclose()
