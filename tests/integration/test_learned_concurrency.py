"""The fleet finds a limit that nobody states: several workers, the real Redis, and a provider of so many places."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from batchord.contract import NO_USAGE
from batchord.settings import Settings
from batchord.state import keys
from batchord.state.calls import Call, mapping
from workers.celery_app import create_celery
from workers.context import Context
from workers.providers import Response
from workers.shares import take_shares

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

pytestmark = pytest.mark.timeout(60)

BOUND_S = 30.0
LATENCY_S = 0.004
"""What the provider's answers take; short, since the limit is looked at again only after that time has passed."""


class Traffic:
    """Workers that always have more to send, and a provider that refuses whom it has no place for."""

    def __init__(self, workers: list[Context], places: int) -> None:
        self.workers, self.places = workers, places
        self.most_in_flight = 0

    @property
    def in_flight(self) -> int:
        return sum(worker.permits["p"].held for worker in self.workers)

    async def go_on(self, until: Callable[[], bool]) -> None:
        """Have requests end and begin, and the limit shared, until a condition holds."""
        async with asyncio.timeout(BOUND_S):
            while not until():
                for worker in self.workers:
                    await self._turn(worker)

    async def _turn(self, worker: Context) -> None:
        permits, samples = worker.permits["p"], worker.samples["p"]
        for _ in range(permits.held):
            samples.ended(answer(429 if self.in_flight > self.places else 200), LATENCY_S)
            permits.give_back()
        while permits.try_take():
            samples.began()
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await take_shares(worker)


def answer(status: int) -> Response:
    return Response(status, b"{}", "", NO_USAGE, None, LATENCY_S * 1000, 0)


@pytest.fixture
def settings(valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("workers.shares._LEARNING_S", 0.0)
    providers = tmp_path / "providers.toml"
    providers.write_text('[providers.p]\nkind = "simulated"\n[providers.p.limits."big-*"]\nmax_concurrency = 3\n')
    return Settings(redis_url=valkey.url, providers=providers, data_dir=tmp_path)


@asynccontextmanager
async def fleet(settings: Settings, count: int) -> AsyncIterator[list[Context]]:
    """Give workers that share only when a test says so."""
    async with AsyncExitStack() as stack:
        app = create_celery(settings)
        stack.callback(app.close)
        workers = [Context(app, settings) for _ in range(count)]
        for number, worker in enumerate(workers):
            worker.worker = f"host{number}-1-{number:016}"  # one process cannot have two living workers
            await stack.enter_async_context(worker)
            worker._beating.cancel()
        yield workers


async def found(worker: Context) -> dict[str, str]:
    return await worker.state.run(Call(("HGETALL", keys.concurrency("p")), mapping))


def limit_of(workers: list[Context]) -> int:
    return sum(worker.permits["p"].limit for worker in workers)


async def test_workers_find_together_how_many_requests_a_provider_takes(settings: Settings) -> None:
    async with fleet(settings, 3) as workers:
        traffic = Traffic(workers, places=10_000)
        await traffic.go_on(until=lambda: traffic.in_flight > 200)
        assert min(worker.permits["p"].held for worker in workers) > 0
        assert int((await found(workers[0]))["limit"]) >= 200


async def test_refusals_keep_the_fleet_at_what_the_provider_takes(settings: Settings) -> None:
    async with fleet(settings, 2) as workers:
        traffic = Traffic(workers, places=60)
        await traffic.go_on(until=lambda: traffic.most_in_flight > 60)
        await traffic.go_on(until=lambda: 30 <= limit_of(workers) <= 60)
        assert int((await found(workers[0]))["limit"]) <= 60


async def test_a_worker_that_joins_has_its_part_of_the_limit_that_was_found(settings: Settings) -> None:
    async with fleet(settings, 2) as workers:
        traffic = Traffic(workers[:1], places=10_000)
        await traffic.go_on(until=lambda: traffic.in_flight >= 64)
        both = Traffic(workers, places=10_000)
        await both.go_on(until=lambda: min(worker.permits["p"].limit for worker in workers) >= 32)


async def test_the_models_that_the_file_limits_apart_have_their_own_part(settings: Settings) -> None:
    async with fleet(settings, 2) as workers:
        for worker in [*workers, *workers, *workers]:
            await take_shares(worker)
        assert sorted(worker.permits["p/big-*"].limit for worker in workers) == [1, 2]
        assert [worker.permits["p"].limit for worker in workers] == [8, 8]
