"""Batches that are there, over HTTP: found, cancelled, removed, and nobody else's."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from batchord.client import Client
from batchord.errors import BatchordError
from batchord.lifecycle import Status
from batchord.settings import Settings
from batchord.state import keys
from batchord.state.calls import Call
from tests.integration.api import Api, open_api
from tests.integration.api_batches import (
    ENDED,
    REQUESTS,
    RUNNING,
    TENANTS,
    as_tenant,
    batch_ids,
    entered,
    order,
    put_into,
    refusal,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path, completion_windows="24h,1h") as api:
        yield api


async def test_another_tenants_file_and_batch_are_as_unknown_ones(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=TENANTS) as api:
        body = await order(api, input_file_id=await stored(api, tenant="one"))
        foreign = await api.post("/v1/batches", json=body, headers=as_tenant("two"))
        own = await api.post("/v1/batches", json=body, headers=as_tenant("one"))
        assert foreign.json()["error"]["message"].startswith("Cannot find file file-")
        assert (foreign.status_code, own.status_code) == (400, 200)
        path = f"/v1/batches/{own.json()['id']}"
        for method, suffix in (("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/events")):
            answer = await api.request(method, path + suffix, headers=as_tenant("two"))
            message = f"No batch found with id '{own.json()['id']}'."
            assert (answer.status_code, answer.json()) == (404, refusal(message))
        listed = await api.get("/v1/batches", params={"after": own.json()["id"]}, headers=as_tenant("two"))
        assert listed.status_code == 404
        assert (await api.get("/v1/batches", headers=as_tenant("two"))).json()["data"] == []
        assert (await api.get(path, headers=as_tenant("one"))).json()["status"] == "validating"


async def test_an_id_that_is_none_of_a_batch_is_refused(api: Api) -> None:
    file_id = await stored(api)
    for method, suffix in (("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/events")):
        answer = await api.request(method, f"/v1/batches/{file_id}{suffix}")
        message = f"Invalid 'batch_id': '{file_id}'. Expected an ID that begins with 'batch'."
        assert (answer.status_code, answer.json()) == (400, refusal(message, "batch_id", "invalid_value"))


@pytest.mark.parametrize("batch_id", ["batch_none", "batch", "batch_%7D:x", "batch_%00", "batch_%F0%9F%98%80"])
async def test_an_unknown_batch_is_not_found(api: Api, batch_id: str) -> None:
    answer = await api.get(f"/v1/batches/{batch_id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith("No batch found with id 'batch")
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (None, None)


@pytest.mark.parametrize("status", [Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING])
async def test_a_running_batch_is_cancelled_by_a_post_without_a_body(api: Api, status: Status) -> None:
    batch = await entered(api, status)
    answer = await api.post(f"/v1/batches/{batch.id}/cancel", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")
    assert answer.json()["cancelling_at"] is not None


@pytest.mark.parametrize("status", [Status.CANCELLING, Status.CANCELLED])
async def test_cancelling_again_changes_nothing(api: Api, status: Status) -> None:
    batch = await entered(api, status)
    before = (await api.get(f"/v1/batches/{batch.id}")).json()
    answer = await api.post(f"/v1/batches/{batch.id}/cancel")
    assert (answer.status_code, answer.json()) == (200, before)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.EXPIRED])
async def test_a_batch_that_ended_otherwise_cannot_be_cancelled(api: Api, status: Status) -> None:
    batch = await entered(api, status)
    answer = await api.post(f"/v1/batches/{batch.id}/cancel")
    message = f"Cannot cancel a batch with status '{status}'."
    assert (answer.status_code, answer.json()) == (409, refusal(message))
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", ENDED)
async def test_a_removed_batch_is_gone(api: Api, status: Status) -> None:
    batch = await entered(api, status)
    answer = await api.delete(f"/v1/batches/{batch.id}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (200, {"id": batch.id, "object": "batch", "deleted": True})
    for method, suffix in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        assert (await api.request(method, f"/v1/batches/{batch.id}{suffix}")).status_code == 404
    assert await batch_ids(api) == []


@pytest.mark.parametrize("status", RUNNING)
async def test_a_running_batch_cannot_be_removed(api: Api, status: Status) -> None:
    batch = await entered(api, status)
    answer = await api.delete(f"/v1/batches/{batch.id}")
    message = f"Cannot delete a batch with status '{status}'; cancel it, or wait for its end."
    assert (answer.status_code, answer.json()) == (409, refusal(message))
    assert await batch_ids(api) == [batch.id]


async def test_the_problems_of_a_refused_input_are_told_with_line_and_param(api: Api) -> None:
    batch = await entered(api, Status.FAILED)
    problem = {"code": "invalid_url", "message": "No.", "param": "url", "line": 3}
    problems = json.dumps([{**problem, "summary": "not on the wire"}])
    await api.backend.state.run(Call(("HSET", keys.batch(batch.id), "errors", problems), bool))
    shown = (await api.get(f"/v1/batches/{batch.id}")).json()
    assert shown["errors"] == {"object": "list", "data": [problem]}


async def test_the_library_and_the_api_see_the_same_batches(valkey: EmbeddedValkey, tmp_path: Path, api: Api) -> None:
    client = Client(Settings(redis_url=valkey.url, storage_url=(tmp_path / "storage").as_uri()))
    own = await asyncio.to_thread(client.submit, REQUESTS, metadata={"by": "library"})
    theirs = (await api.post("/v1/batches", json=await order(api))).json()["id"]
    assert await batch_ids(api) == [theirs, own.id]
    assert (await api.get(f"/v1/batches/{own.id}")).json()["metadata"] == {"by": "library"}
    assert (await asyncio.to_thread(client.batch(theirs).cancel)) is Status.CANCELLING
    assert (await api.get(f"/v1/batches/{theirs}")).json()["status"] == "cancelling"
    await put_into(api, own.id, Status.COMPLETED)
    assert (await api.delete(f"/v1/batches/{own.id}")).status_code == 200
    with pytest.raises(BatchordError, match="No batch found"):
        await asyncio.to_thread(client.batch, own.id)
    client.close()
