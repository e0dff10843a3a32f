"""The health routes: whether the API is up, and whether it can work."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2

from app import create_app
from batchord.embedded import EmbeddedValkey
from batchord.settings import Settings
from batchord.state import leases
from batchord.state.connection import BlockingState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def api(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(Settings(redis_url=redis_url))
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://batchord") as client,
    ):
        yield client


async def test_it_is_ready_while_redis_answers_and_says_how_many_workers_live(valkey: EmbeddedValkey) -> None:
    state = BlockingState(valkey.url)
    state.run_all([leases.beat("living", time.time() + 60), leases.beat("dead", time.time() - 60)])
    state.close()
    async with api(valkey.url) as client:
        up, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (up.status_code, up.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "redis": "up", "workers": 1})


async def test_it_is_up_but_not_ready_without_redis_and_says_when_to_ask_again(tmp_path: Path) -> None:
    async with api(f"unix://{tmp_path}/none.sock") as client:
        up, ready = await client.get("/healthz"), await client.get("/readyz")
    assert up.status_code == 200
    assert (ready.status_code, ready.json()["redis"]) == (503, "down")
    assert int(ready.headers["retry-after"]) > 0


async def test_it_is_ready_again_once_redis_is_back(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    async with api(server.url) as client:
        statuses = [(await client.get("/readyz")).status_code]
        for _ in range(2):
            with server:
                statuses.append((await client.get("/readyz")).status_code)
            statuses.append((await client.get("/readyz")).status_code)
    assert statuses == [503, 200, 503, 200, 503]
