"""What has ended goes when its retention is over: a fleet that has run many batches holds no more than after a few.

With BATCHORD_RETENTION_BATCHES=10000 in the environment it runs that many, and prints what it found.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from batchord.state import keys
from tests.acceptance.cli import wait_until
from tests.acceptance.fleet import Fleet
from tests.integration.api import Api, open_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import redis

FEW: Final = 30
MANY: Final = int(os.environ.get("BATCHORD_RETENTION_BATCHES", "90"))
AT_ONCE: Final = 16
BOUND_S: Final = 120 + MANY / 10
KEYS_TOLERANCE_BYTES: Final = 500
SERVER_TOLERANCE_BYTES: Final = 400_000
"""What the server itself takes more or less from one moment to the next, for its clients and its tables."""
COMING_AND_GOING: Final = ("batchord:lease", "batchord:condition:", "unacked")
"""What the sweep holds while it runs, and what is told of a provider now and then: one key for each."""

pytestmark = pytest.mark.timeout(180 + 2 * MANY)


class Kept(NamedTuple):
    """What a fleet keeps once all that has ended is gone."""

    keys: dict[str, int]  # with the bytes of each
    memory_bytes: int
    objects: list[str]


class House:
    """A fleet of one worker, the API in this process, and clients that do with batches all that there is to do."""

    def __init__(self, fleet: Fleet, api: Api, server: redis.Redis) -> None:
        self.fleet, self.api, self.server = fleet, api, server

    async def run(self, count: int) -> None:
        """Run so many batches, of every kind in turns, to their ends."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await KINDS[number % len(KINDS)](self, number)

        await asyncio.gather(*(one(number) for number in range(count)))
        await came(lambda: not self.server.exists(keys.ACTIVE), "no batch runs any more")

    def pass_retention(self) -> None:
        """Let the time of every batch, file and upload be over, as if a month had passed."""
        for name in self.server.scan_iter("batchord:{batch_*}"):
            if self.server.hexists(name, "ended_ms"):
                self.server.hset(name, "ended_ms", 1)
        for name in self.server.scan_iter("batchord:{file-*}"):
            self.server.hset(name, "expires_at", 1)
        for name in [*self.server.scan_iter("batchord:*:once:*"), *self.server.scan_iter("batchord:{upload_*}")]:
            assert 0 < self.server.ttl(name) <= 2 * 86_400
            self.server.delete(name)
        for due in (keys.RETIRED, keys.FILES, keys.UPLOADS):  # last, for now the sweep begins
            for member in self.server.zrange(due, 0, -1):
                self.server.zadd(due, {str(member): 1})

    async def kept(self) -> Kept:
        """Let all that has ended go, and see what stays."""
        self.pass_retention()
        await came(lambda: not self.server.exists(keys.RETIRED, keys.FILES, keys.UPLOADS), "the sweep lets all go")
        await came(lambda: not self.server.exists("unacked"), "no message is in flight")
        names = [name for name in self.server.scan_iter() if not name.startswith(COMING_AND_GOING)]
        sizes = {name: int(self.server.memory_usage(name, samples=0) or 0) for name in sorted(names)}
        storage = self.fleet.path / "storage"
        objects = [str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file()]
        return Kept(sizes, self.server.info("memory")["used_memory"], objects)

    async def create(self, number: int, lines: int = 1, model: str = "m", **more: Any) -> dict[str, Any]:
        """Create a batch of simulated requests, with an Idempotency-Key."""
        requests = [{"custom_id": f"{n}", "body": {"model": model, "messages": []}} for n in range(lines)]
        order = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": requests, **more}
        key = {"Idempotency-Key": f"{number}-{time.monotonic()}"}
        answer = await self.api.post("/v1/batches", json=order, headers=key)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ended(self, batch_id: str) -> dict[str, Any]:
        """Wait for a batch's end."""
        batch: dict[str, Any] = {}
        async with asyncio.timeout(BOUND_S):
            while batch.get("status") not in {"completed", "failed", "cancelled"}:
                batch = (await self.api.get(f"/v1/batches/{batch_id}")).json()
                await asyncio.sleep(0.1)  # a poll, not a pause
        return batch


async def completes(house: House, number: int) -> None:
    batch = await house.create(number, 3)
    assert (await house.ended(batch["id"]))["request_counts"]["completed"] == 3


async def fails_in_part_and_is_retried(house: House, number: int) -> None:
    batch = await house.create(number, 2, model="broken")
    assert (await house.ended(batch["id"]))["request_counts"]["failed"] == 2
    assert (await house.api.post(f"/v1/batches/{batch['id']}/retry")).status_code == 200
    assert (await house.ended(batch["id"]))["status"] == "completed"


async def is_refused(house: House, number: int) -> None:
    batch = await house.create(number, model="nobody's")
    assert (await house.ended(batch["id"]))["status"] == "failed"


async def is_cancelled(house: House, number: int) -> None:
    batch = await house.create(number, 2, model="slow")
    await house.api.post(f"/v1/batches/{batch['id']}/cancel")
    assert (await house.ended(batch["id"]))["status"] in {"cancelled", "failed"}


async def is_deleted(house: House, number: int) -> None:
    batch = await house.create(number)
    await house.ended(batch["id"])
    assert (await house.api.delete(f"/v1/batches/{batch['id']}")).status_code == 200


async def is_of_an_upload(house: House, number: int) -> None:
    line = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}\n'
    order = {"filename": f"{number}.jsonl", "bytes": len(line), "purpose": "batch", "mime_type": "application/jsonl"}
    upload = (await house.api.post("/v1/uploads", json=order)).json()
    part = (await house.api.post(f"/v1/uploads/{upload['id']}/parts", files={"data": line})).json()
    parts = {"part_ids": [part["id"]]}
    file = (await house.api.post(f"/v1/uploads/{upload['id']}/complete", json=parts)).json()["file"]
    batch = await house.create(number, requests=None, input_file_id=file["id"])
    await house.ended(batch["id"])


KINDS: Final = [completes, fails_in_part_and_is_retried, is_refused, is_cancelled, is_deleted, is_of_an_upload]


async def came(condition: Any, what: str) -> None:
    """Wait for a condition beside the API, which runs on this loop."""
    await asyncio.to_thread(wait_until, condition, what, BOUND_S)


@asynccontextmanager
async def open_house(path: Path) -> AsyncIterator[House]:
    with Fleet(path) as fleet, fleet.redis() as server:
        server.config_set("appendonly", "no")  # or every create would wait for its turn on the disk
        simulated = {"kind": "simulated", "latency_s": 0.0, "max_concurrency": 50}
        fleet.write_providers(
            sim={**simulated, "models": ["m"]},
            broken={**simulated, "models": ["broken"], "endpoints": ["/v1/embeddings"]},
            slow={**simulated, "models": ["slow"], "latency_s": 0.3},
        )
        await asyncio.to_thread(fleet.start)
        settings = {"providers": fleet.path / "providers.toml", "data_dir": fleet.path}
        async with open_api(fleet.env["BATCHORD_REDIS_URL"], fleet.path, **settings) as api:
            yield House(fleet, api, server)


async def test_a_fleet_that_has_run_many_batches_holds_no_more_than_after_a_few(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.run(FEW)
        few = await house.kept()
        await house.run(MANY)
        many = await house.kept()
    print(f"after {FEW} batches: {few}\nafter {MANY} more: {many}")  # noqa: T201  (for who asks for many)
    assert few.objects == many.objects == []
    assert many.keys.keys() == few.keys.keys()
    assert sum(many.keys.values()) < sum(few.keys.values()) + KEYS_TOLERANCE_BYTES
    assert many.memory_bytes < few.memory_bytes + SERVER_TOLERANCE_BYTES
