"""Batches created over HTTP: whole, durable, once for each Idempotency-Key, of a file or of inline requests."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from batchord.embedded import EmbeddedValkey
from batchord.errors import BatchordError
from batchord.lifecycle import Status
from batchord.service.entry import Entry
from batchord.state import batches, files, keys
from batchord.state.calls import Call
from batchord.storage import paths
from tests.integration.api import Api, open_api
from tests.integration.api_batches import (
    CHAT,
    REQUESTS,
    TENANTS,
    as_tenant,
    batch_ids,
    file_ids,
    order,
    put_into,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path, completion_windows="24h,1h") as api:
        yield api


async def test_a_new_batch_has_every_key_of_the_contract(api: Api) -> None:
    body = await order(api, metadata={"who": "Zoë 😀"}, unknown="ignored")
    answer = await api.post("/v1/batches", json=body)
    batch = answer.json()
    assert answer.status_code == 200
    assert batch["id"].startswith("batch_")
    assert batch["expires_at"] == batch["created_at"] + 86_400
    assert {**batch, "id": "", "created_at": 0, "expires_at": 0} == {
        "id": "",
        "object": "batch",
        "endpoint": CHAT,
        "model": None,
        "errors": None,
        "input_file_id": body["input_file_id"],
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": 0,
        "in_progress_at": None,
        "expires_at": 0,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
        "metadata": {"who": "Zoë 😀"},
    }
    assert (await api.get(f"/v1/batches/{batch['id']}")).json() == batch


@pytest.mark.parametrize("metadata", [None, {}])
async def test_metadata_is_given_back_as_it_was_given(api: Api, metadata: dict[str, str] | None) -> None:
    created = await api.post("/v1/batches", json=await order(api, metadata=metadata))
    assert created.json()["metadata"] == metadata


async def test_the_terms_reach_the_fleet(api: Api) -> None:
    body = await order(api, completion_window="1h", output_expires_after={"anchor": "created_at", "seconds": 3_600})
    batch = (await api.post("/v1/batches", json=body)).json()
    record = await api.backend.state.run(batches.read(batch["id"]))
    assert record is not None
    assert record.batch.output_expires_after_s == 3_600
    assert batch["expires_at"] == batch["created_at"] + 3_600
    assert [batch_id for batch_id, _ in await api.backend.state.run(batches.active())] == [batch["id"]]


async def test_a_server_without_an_append_only_file_takes_batches_too(api: Api) -> None:
    await api.backend.state.run(Call(("CONFIG", "SET", "appendonly", "no"), bool))
    try:
        answer = await api.post("/v1/batches", json=await order(api))
        assert (answer.status_code, await batch_ids(api)) == (200, [answer.json()["id"]])
    finally:
        await api.backend.state.run(Call(("CONFIG", "SET", "appendonly", "yes"), bool))


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "key"}])
async def test_what_is_not_on_the_disk_in_time_is_taken_back_unless_a_repeat_would_be_the_same(
    tmp_path: Path, key: dict[str, str]
) -> None:
    with EmbeddedValkey(tmp_path / "slow") as slow:
        async with open_api(slow.url, tmp_path) as api:
            body = await order(api)
            api.backend.entry = Entry(api.backend.state, disk_wait_ms=1)
            await api.backend.state.run(Call(("CONFIG", "SET", "appendfsync", "no"), bool))
            refused = await api.post("/v1/batches", json=body, headers=key)
            left = await batch_ids(api)
            active = [batch_id for batch_id, _ in await api.backend.state.run(batches.active())]
            await api.backend.state.run(Call(("CONFIG", "SET", "appendfsync", "everysec"), bool))
            api.backend.entry = Entry(api.backend.state)
            again = await api.post("/v1/batches", json=body, headers=key)
    assert (refused.status_code, again.status_code, active) == (503, 200, left)
    assert left == ([again.json()["id"]] if key else [])


async def test_a_key_whose_batch_was_deleted_makes_another_batch(api: Api) -> None:
    body, key = await order(api), {"Idempotency-Key": "key"}
    first = (await api.post("/v1/batches", json=body, headers=key)).json()["id"]
    await put_into(api, first, Status.FAILED)
    assert (await api.delete(f"/v1/batches/{first}")).status_code == 200
    second = (await api.post("/v1/batches", json=body, headers=key)).json()["id"]
    assert await batch_ids(api) == [second]
    assert second != first


async def test_many_batches_created_at_once_are_all_there(api: Api) -> None:
    body = await order(api)
    answers = await asyncio.gather(*(api.post("/v1/batches", json=body) for _ in range(40)))
    assert {answer.status_code for answer in answers} == {200}
    listed = (await api.get("/v1/batches", params={"limit": 100})).json()["data"]
    assert {batch["id"] for batch in listed} == {answer.json()["id"] for answer in answers}
    assert len(listed) == 40


async def test_the_same_request_under_one_key_is_one_batch(api: Api) -> None:
    body, key = await order(api, metadata={"a": "b"}), {"Idempotency-Key": "key 1"}
    first = await api.post("/v1/batches", json=body, headers=key)
    again = await api.post("/v1/batches", json=dict(reversed(body.items())), headers=key)
    other = await api.post("/v1/batches", json=body, headers={"Idempotency-Key": "key 2"})
    none = await api.post("/v1/batches", json=body)
    assert [answer.status_code for answer in (first, again, other, none)] == [200] * 4
    assert again.json() == first.json()
    assert len({first.json()["id"], other.json()["id"], none.json()["id"]}) == 3


async def test_the_same_request_is_answered_though_its_file_is_gone(api: Api) -> None:
    body, key = await order(api), {"Idempotency-Key": "key"}
    first = await api.post("/v1/batches", json=body, headers=key)
    await api.backend.state.run(Call(("DEL", keys.file(body["input_file_id"])), bool))
    again = await api.post("/v1/batches", json=body, headers=key)
    assert again.json() == first.json()


async def test_another_request_under_the_same_key_is_refused(api: Api) -> None:
    body, key = await order(api), {"Idempotency-Key": "key"}
    await api.post("/v1/batches", json=body, headers=key)
    answer = await api.post("/v1/batches", json={**body, "metadata": {}}, headers=key)
    message = "This Idempotency-Key was used with another request before; use a new key for a new request."
    assert (answer.status_code, answer.json()) == (400, refusal(message, "Idempotency-Key", "idempotency_key_reused"))
    assert len(await batch_ids(api)) == 1


async def test_a_key_of_another_tenant_is_another_key(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=TENANTS) as api:
        body = {"requests": REQUESTS, "endpoint": CHAT, "completion_window": "24h"}
        answers = [
            await api.post("/v1/batches", json=body, headers={"Idempotency-Key": "key", **as_tenant(tenant)})
            for tenant in ("one", "two")
        ]
        assert len({answer.json()["id"] for answer in answers}) == 2


async def test_a_refused_request_does_not_use_its_key_up(api: Api) -> None:
    key = {"Idempotency-Key": "key"}
    bad = await api.post("/v1/batches", json=await order(api, input_file_id="file-unknown"), headers=key)
    good = await api.post("/v1/batches", json=await order(api), headers=key)
    assert (bad.status_code, good.status_code) == (400, 200)


@pytest.mark.parametrize("inline", [False, True])
async def test_requests_at_once_under_one_key_make_one_batch_and_no_stray_file(api: Api, *, inline: bool) -> None:
    body = await order(api, **({"requests": REQUESTS} if inline else {}))
    answers = await asyncio.gather(
        *(api.post("/v1/batches", json=body, headers={"Idempotency-Key": "key"}) for _ in range(10))
    )
    (batch_id,) = {answer.json()["id"] for answer in answers}
    (input_file_id,) = {answer.json()["input_file_id"] for answer in answers}
    assert await batch_ids(api) == [batch_id]
    assert await file_ids(api) == [input_file_id]


@pytest.mark.parametrize("inline", [False, True])
async def test_requests_at_once_to_two_processes_under_one_key_make_one_batch(
    valkey: EmbeddedValkey, tmp_path: Path, *, inline: bool
) -> None:
    async with open_api(valkey.url, tmp_path) as api, open_api(valkey.url, tmp_path) as other:
        body = await order(api, **({"requests": REQUESTS} if inline else {}))
        key = {"Idempotency-Key": "key"}
        answers = await asyncio.gather(*(each.post("/v1/batches", json=body, headers=key) for each in (api, other) * 5))
        (batch_id,) = {answer.json()["id"] for answer in answers}
        (input_file_id,) = {answer.json()["input_file_id"] for answer in answers}
        assert await batch_ids(other) == [batch_id]
        assert await file_ids(other) == [input_file_id]


async def test_a_key_whose_day_ends_in_the_middle_of_a_request_makes_one_batch(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, key, run = await order(api), {"Idempotency-Key": "key"}, api.backend.state.run
    claims = []

    async def claimed_and_over(call: Call[Any]) -> Any:
        answer = await run(call)
        if call.command[0] == "SET":
            claims.append(call.command[1])
        if call.command[0] == "SET" and len(claims) == 1:
            await run(Call(("DEL", call.command[1]), bool))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(api.backend.state, "run", claimed_and_over)
        answer = await api.post("/v1/batches", json=body, headers=key)
    assert (answer.status_code, len(claims)) == (200, 2)
    assert await batch_ids(api) == [answer.json()["id"]]


@pytest.mark.parametrize("inline", [False, True])
async def test_a_request_that_died_before_its_batch_was_written_is_made_good_under_the_same_id(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, inline: bool
) -> None:
    body, key = await order(api, **({"requests": REQUESTS} if inline else {})), {"Idempotency-Key": "key"}
    tried = []

    async def die(batch: Any) -> None:
        tried.append(batch.id)
        raise BatchordError("The process is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(api.backend.entry, "write", die)
        assert (await api.post("/v1/batches", json=body, headers=key)).status_code == 500
    assert await batch_ids(api) == []
    answer = await api.post("/v1/batches", json=body, headers=key)
    assert (answer.status_code, [answer.json()["id"]]) == (200, tried)
    assert await batch_ids(api) == tried


async def test_inline_requests_become_an_input_file(api: Api) -> None:
    body = {"requests": REQUESTS, "endpoint": CHAT, "completion_window": "24h"}
    batch = (await api.post("/v1/batches", json=body)).json()
    file = await api.backend.state.run(files.read(batch["input_file_id"]))
    assert file is not None
    content = await api.backend.blobs.get(paths.file(file.id))
    assert [json.loads(line) for line in content.splitlines()] == [
        {"method": "POST", "url": CHAT, **request} for request in REQUESTS
    ]
    assert (file.filename, file.purpose, file.bytes) == ("requests.jsonl", "batch", len(content))
