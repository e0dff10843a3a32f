"""The health routes: whether the API is up, and whether it can work."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

from batchord.embedded import EmbeddedValkey
from batchord.state import leases
from batchord.state.connection import BlockingState
from tests.integration.api import open_api

if TYPE_CHECKING:
    from pathlib import Path


async def test_it_is_ready_while_all_answers_and_says_how_many_workers_live(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    with closing(BlockingState(valkey.url)) as state:
        state.run_all([leases.beat("living", 60), leases.beat("dead", -60)])
    async with open_api(valkey.url, tmp_path) as api:
        up, ready = await api.get("/healthz"), await api.get("/readyz")
    assert (up.status_code, up.json()) == (200, {"status": "ok"})
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "redis": "up", "storage": "up", "workers": 1}


async def test_it_is_up_but_not_ready_without_redis_and_says_when_to_ask_again(tmp_path: Path) -> None:
    async with open_api(f"unix://{tmp_path}/none.sock", tmp_path) as api:
        up, ready = await api.get("/healthz"), await api.get("/readyz")
    assert up.status_code == 200
    assert ready.status_code == 503
    assert ready.json() == {"status": "unavailable", "redis": "down", "storage": "up", "workers": None}
    assert int(ready.headers["retry-after"]) > 0


async def test_it_is_not_ready_without_its_storage(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        storage = tmp_path / "storage"
        shutil.rmtree(storage)
        storage.write_text("a file where the folder was")
        away = await api.get("/readyz")
        storage.unlink()
        storage.mkdir()
        back = await api.get("/readyz")
    assert away.status_code == 503
    assert away.json() == {"status": "unavailable", "redis": "up", "storage": "down", "workers": 0}
    assert int(away.headers["retry-after"]) > 0
    assert (back.status_code, back.json()["storage"]) == (200, "up")


async def test_it_is_ready_again_once_redis_is_back(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    async with open_api(server.url, tmp_path) as api:
        statuses = [(await api.get("/readyz")).status_code]
        for _ in range(2):
            with server:
                statuses.append((await api.get("/readyz")).status_code)
            statuses.append((await api.get("/readyz")).status_code)
    assert statuses == [503, 200, 503, 200, 503]
