"""A batch's progress as server-sent events: from the first to the end, through trouble, and for nobody any more."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from batchord.embedded import EmbeddedValkey
from batchord.errors import StateUnavailableError
from batchord.lifecycle import Status
from batchord.state import batches, removal
from tests.integration.api import Api, open_api
from tests.integration.api_batches import entered, put_into
from tests.integration.steps import BATCH, BOUND_S, Sites, mixed_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.types import ASGIApp, Message

    from batchord.state.calls import Call


class Stream:
    """One request for events, by hand, since the client of the other tests waits for an answer's end."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "app": app,
        }
        self._gone = asyncio.Event()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self.served = asyncio.create_task(self._serve(app, scope))
        self.content_type = ""

    async def _serve(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._sent.put)

    async def _receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        """Close the connection, as a client that has seen enough."""
        self._gone.set()

    async def part(self) -> str:
        """Give the next part of the answer; an empty one is its end."""
        while True:
            message = await asyncio.wait_for(self._sent.get(), BOUND_S)
            if message["type"] == "http.response.start":
                self.content_type = dict(message["headers"])[b"content-type"].decode()
            elif message["body"] or not message.get("more_body"):
                return bytes(message["body"]).decode()

    async def event(self) -> tuple[str, Any]:
        """Give the next event and what it says."""
        name, content = (await self.part()).splitlines()[:2]
        return name.removeprefix("event: "), json.loads(content.removeprefix("data: "))


def application(api: Api) -> ASGIApp:
    transport = api._transport
    assert isinstance(transport, httpx2.ASGITransport)
    return transport.app


@asynccontextmanager
async def watched(api: Api, batch_id: str) -> AsyncIterator[Stream]:
    stream = Stream(application(api), f"/v1/batches/{batch_id}/events")
    try:
        yield stream
    finally:
        stream.leave()
        await asyncio.wait_for(stream.served, BOUND_S)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchord.service.batches._POLL_S", 0.01)


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path) as api:
        yield api


async def test_a_batch_is_shown_from_its_first_to_its_last_status(sites: Sites) -> None:
    async with sites.new() as site, open_api(site.settings.redis_url, site.settings.data_dir) as api:
        site.submit(mixed_lines())
        async with watched(api, BATCH) as stream:
            events = [await stream.event()]
            await site.drive()
            while events[-1][0] != "end":
                events.append(await stream.event())
            assert await stream.part() == ""
        assert stream.content_type.startswith("text/event-stream")
        assert {name for name, _ in events[:-1]} == {"progress"}
        assert events[0][1]["status"] == "validating"
        assert events[-1][1] == (await api.get(f"/v1/batches/{BATCH}")).json()
        assert events[-1][1]["status"] == "completed"
        assert all(earlier != later for (_, earlier), (_, later) in pairwise(events))


async def test_a_batch_that_has_ended_is_shown_once(api: Api) -> None:
    batch = await entered(api, Status.EXPIRED)
    answer = await api.get(f"/v1/batches/{batch.id}/events")
    name, content, *rest = answer.text.splitlines()
    assert (name, rest) == ("event: end", [""])
    assert json.loads(content.removeprefix("data: ")) == (await api.get(f"/v1/batches/{batch.id}")).json()


async def test_a_client_that_left_is_served_no_more(api: Api) -> None:
    batch = await entered(api, Status.IN_PROGRESS)
    async with watched(api, batch.id) as stream:
        await stream.event()
        stream.leave()
        await asyncio.wait_for(stream.served, BOUND_S)


async def test_a_batch_that_is_removed_ends_the_events(api: Api) -> None:
    batch = await entered(api, Status.IN_PROGRESS)
    async with watched(api, batch.id) as stream:
        assert (await stream.event())[0] == "progress"
        record = await api.backend.state.run(batches.read(batch.id))
        assert record is not None
        await api.backend.state.run_all(removal.erase(record))
        assert await stream.part() == ""


async def test_comments_keep_a_silent_connection_open(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.01)
    batch = await entered(api, Status.IN_PROGRESS)
    async with watched(api, batch.id) as stream:
        assert (await stream.event())[0] == "progress"
        assert (await stream.part()).startswith(":")


async def test_events_go_on_after_redis_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedValkey(tmp_path / "valkey")
    async with open_api(server.url, tmp_path) as api:
        refused, run = asyncio.Event(), api.backend.state.run

        async def observed(call: Call[Any]) -> Any:
            try:
                return await run(call)
            except StateUnavailableError:
                refused.set()
                raise

        monkeypatch.setattr(api.backend.state, "run", observed)
        with server:
            batch = await entered(api, Status.IN_PROGRESS)
            stream = Stream(application(api), f"/v1/batches/{batch.id}/events")
            assert (await stream.event())[0] == "progress"
        await asyncio.wait_for(refused.wait(), BOUND_S)
        with server:
            await put_into(api, batch.id, Status.COMPLETED)
            assert (await stream.event())[0] == "end"
            await asyncio.wait_for(stream.served, BOUND_S)
