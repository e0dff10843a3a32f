"""What the API and producers are told while Redis does not do its part: nothing that may be lost, and in good time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import psutil
import pytest
import redis

from batchord import Client
from batchord.contract import DEFAULT_TENANT
from batchord.embedded import EmbeddedValkey
from batchord.errors import StateUnavailableError
from batchord.lifecycle import Status
from batchord.service import retry
from batchord.service.entry import Entry
from batchord.settings import Settings
from batchord.state import batches
from batchord.state.connection import BlockingState, State, StateError
from tests.integration.api import open_api
from tests.integration.api_batches import REQUESTS, entered, order
from tests.integration.api_uploads import complete, with_parts
from tests.integration.retries import ALL, backend_of, ended
from tests.integration.steps import BATCH, Sites, mixed_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    import httpx2

    from tests.integration.api import Api

BOUND_S = 20
LATE = "Redis did not write .*to its disk"


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("own")) as server:
        yield server


@pytest.fixture
def own(own_server: EmbeddedValkey) -> Iterator[EmbeddedValkey]:
    """A server that the test may spoil; it is well and empty again after each test."""
    yield own_server
    with redis.Redis.from_url(own_server.url) as operator:
        operator.config_set("maxmemory", 0)
        operator.config_set("appendfsync", "everysec")
        operator.flushall()


def set_disk(server: EmbeddedValkey, *, is_slow: bool) -> None:
    """Let the server's disk be one that has nothing in time, or a good one."""
    with redis.Redis.from_url(server.url) as operator:
        operator.config_set("appendfsync", "no" if is_slow else "everysec")


async def new_batch(api: Api) -> Callable[[], Awaitable[httpx2.Response]]:
    body = await order(api)
    return lambda: api.post("/v1/batches", json=body, headers={"Idempotency-Key": "key"})


async def cancelled_batch(api: Api) -> Callable[[], Awaitable[httpx2.Response]]:
    batch = await entered(api, Status.IN_PROGRESS)
    return lambda: api.post(f"/v1/batches/{batch.id}/cancel")


async def completed_upload(api: Api) -> Callable[[], Awaitable[httpx2.Response]]:
    upload_id, part_ids = await with_parts(api)
    return lambda: complete(api, upload_id, part_ids)


@pytest.mark.parametrize("prepare", [new_batch, cancelled_batch, completed_upload])
async def test_a_client_is_told_of_a_write_once_it_is_on_the_disk_and_may_ask_again_until_then(
    own: EmbeddedValkey, tmp_path: Path, prepare: Callable[[Api], Awaitable[Callable[[], Awaitable[httpx2.Response]]]]
) -> None:
    async with open_api(own.url, tmp_path) as api:
        asking = await prepare(api)
        set_disk(own, is_slow=True)
        api.backend.entry = Entry(api.backend.state, disk_wait_ms=1)
        assert (await asking()).status_code == 503
        set_disk(own, is_slow=False)
        api.backend.entry = Entry(api.backend.state)
        assert (await asking()).status_code == 200


async def test_a_retry_is_told_of_once_it_is_on_the_disk(own: EmbeddedValkey) -> None:
    with Sites(own.url) as sites:
        async with sites.new() as site, backend_of(site) as backend:
            site.submit(mixed_lines())
            await ended(site)
            set_disk(own, is_slow=True)
            backend.entry = Entry(backend.state, disk_wait_ms=1)
            with pytest.raises(StateUnavailableError, match=LATE):
                await retry.retry(backend, DEFAULT_TENANT, BATCH)
            await site.drive()
            assert site.result().succeeded == ALL  # it was late, not lost


def test_a_producer_is_told_of_a_batch_and_its_end_once_they_are_on_the_disk(
    own: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Client(Settings(redis_url=own.url, data_dir=tmp_path))) as client:
        batch = client.submit(REQUESTS)
        set_disk(own, is_slow=True)
        monkeypatch.setattr("batchord.client._DISK_WAIT_MS", 1)
        with pytest.raises(StateUnavailableError, match=LATE):
            client.submit(REQUESTS)
        with pytest.raises(StateUnavailableError, match=LATE):
            batch.cancel()
        set_disk(own, is_slow=False)
        monkeypatch.undo()
        assert batch.cancel() is Status.CANCELLING
        assert [batch_id for batch_id, _ in client.state.run(batches.active())] == [batch.id]


@asynccontextmanager
async def standing_still(server: EmbeddedValkey) -> AsyncIterator[None]:
    process = psutil.Process(server.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def test_while_redis_stands_still_every_client_is_soon_told_to_come_again(
    own: EmbeddedValkey, tmp_path: Path
) -> None:
    async def asked(times: int) -> set[int]:
        reads, writes = ([ask() for _ in range(times)] for ask in (lambda: api.get("/v1/batches"), create))
        return {answer.status_code for answer in await asyncio.gather(*reads, *writes)}

    async with open_api(own.url, tmp_path, redis_timeout_s=2) as api, asyncio.timeout(BOUND_S):
        create = await new_batch(api)
        assert await asked(1) == {200}
        async with standing_still(own):
            assert await asked(20) == {503}  # more than there are connections
        assert await asked(1) == {200}


async def test_while_redis_is_full_what_is_there_can_be_read_and_what_is_new_is_asked_to_come_again(
    own: EmbeddedValkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_api(own.url, tmp_path) as api:
        body = await order(api)
        with redis.Redis.from_url(own.url) as operator:
            operator.config_set("maxmemory", 1)
            assert (await api.get(f"/v1/files/{body['input_file_id']}")).status_code == 200
            assert (await api.post("/v1/batches", json=body)).status_code == 503
            assert "maxmemory" in caplog.text
            operator.config_set("maxmemory", 0)
        assert (await api.post("/v1/batches", json=body)).status_code == 200


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server that wants a password, on TCP too."""
    with EmbeddedValkey(tmp_path_factory.mktemp("guarded")) as server:
        with redis.Redis.from_url(server.url) as operator:
            operator.config_set("requirepass", "secret")
        yield server


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("who", ["", "password=wrong", "username=nobody&password=secret"])
@pytest.mark.parametrize("is_tcp", [True, False])
async def test_a_redis_that_refuses_the_password_is_no_redis_that_is_away(
    guarded: EmbeddedValkey, unused_tcp_port: int, who: str, *, protocol: int, is_tcp: bool
) -> None:
    with redis.Redis.from_url(guarded.url, password="secret") as operator:
        operator.config_set("port", unused_tcp_port)
    place = f"redis://127.0.0.1:{unused_tcp_port}/0" if is_tcp else guarded.url
    url, read = f"{place}?protocol={protocol}&{who}", batches.read("batch_none")
    state = State(url)
    with pytest.raises(StateError, match="password"):
        await state.run(read)
    await state.aclose()
    with closing(BlockingState(url)) as blocking, pytest.raises(StateError, match="password"):
        blocking.run(read)
