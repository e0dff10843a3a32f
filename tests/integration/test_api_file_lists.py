"""Files over HTTP: how they are listed, deleted, and gone when their time is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from batchord.contract import BatchObject, FileObject, new_batch_id, new_file_id
from batchord.lifecycle import Status
from batchord.service import files as service
from batchord.service.incoming import RESERVED_S, IncomingFile
from batchord.state import batches, files, keys, listings
from batchord.storage import paths
from tests.integration.api import Api, open_api
from tests.integration.api_files import LINE, error, put_file, remains, upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

DAY_S = 86_400


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path) as api:
        yield api


async def put_batch(api: Api, input_file_id: str) -> str:
    """Put a batch there that has not ended, and give its id."""
    batch = BatchObject(
        id=new_batch_id(),
        endpoint="/v1/chat/completions",
        input_file_id=input_file_id,
        completion_window="24h",
        status=Status.VALIDATING,
        created_at=1,
        expires_at=2,
    )
    await api.backend.state.run(batches.activate(batch.id, 1))
    assert await api.backend.state.run(batches.create(batch))
    return batch.id


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_give_every_file_once_also_those_of_one_second(api: Api, order: str, limit: int) -> None:
    written = [(await put_file(api, created_at=1_000 + number // 3)) for number in range(7)]
    seen: list[dict[str, Any]] = []
    has_more = True
    while has_more:
        after = {"after": seen[-1]["id"]} if seen else {}
        page = (await api.get("/v1/files", params={"limit": limit, "order": order, **after})).json()
        assert (page["object"], len(page["data"]) <= limit) == ("list", True)
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        has_more = page["has_more"]
        seen += page["data"]
    expected = [file.id for file in sorted(written, key=lambda file: (file.created_at, file.id))]
    assert [file["id"] for file in seen] == (expected if order == "asc" else expected[::-1])


async def test_files_stored_within_a_second_are_listed_in_their_order(api: Api) -> None:
    stored = [(await upload(api))["id"] for _ in range(4)]
    listed = (await api.get("/v1/files", params={"order": "asc"})).json()
    assert [file["id"] for file in listed["data"]] == stored
    assert listed["has_more"] is False


async def test_a_listing_can_be_of_one_purpose(api: Api) -> None:
    wanted = [(await put_file(api, created_at=number, purpose="vision")).id for number in (10, 20, 30)]
    for number in range(40):
        await put_file(api, created_at=number)
    parameters: dict[str, Any] = {"purpose": "vision", "order": "asc", "limit": 2}
    first = (await api.get("/v1/files", params=parameters)).json()
    rest = (await api.get("/v1/files", params={**parameters, "after": first["last_id"]})).json()
    assert [file["id"] for file in first["data"] + rest["data"]] == wanted
    assert (first["has_more"], rest["has_more"]) == (True, False)


async def test_an_empty_page_has_no_ids(api: Api) -> None:
    await put_file(api)
    page = (await api.get("/v1/files", params={"purpose": "nonsense", "unknown": "ignored"})).json()
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_what_is_listed_without_a_file_is_passed_over_and_dropped(api: Api) -> None:
    key = keys.tenant_files("default")
    kept = [await put_file(api, created_at=at) for at in (1, 3)]
    await api.backend.state.run(listings.note(key, "file-gone", 2))
    page = (await api.get("/v1/files", params={"order": "asc", "limit": 2})).json()
    assert ([file["id"] for file in page["data"]], page["has_more"]) == ([file.id for file in kept], False)
    assert await api.backend.state.run(listings.page(key, after=None, most=9)) == [kept[1].id, kept[0].id]


async def test_produced_files_are_listed_once_they_are_whole(api: Api) -> None:
    growing = FileObject(
        id=new_file_id(), bytes=0, created_at=1, filename="out", purpose="batch_output", status="uploaded", batch_id="b"
    )
    await api.backend.state.run_all(files.write(growing, listed=False))
    assert (await api.get("/v1/files")).json()["data"] == []
    assert (await api.get(f"/v1/files/{growing.id}")).json()["status"] == "uploaded"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=10001",
        "limit=x",
        "limit=1.5",
        "limit=",
        "order=newest",
        "order=",
        "limit=99999999999999999999",
    ],
)
async def test_a_list_s_parameters_have_their_bounds(api: Api, query: str) -> None:
    answer = await api.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_page_after_an_unknown_file_is_not_the_first_page(api: Api) -> None:
    await put_file(api)
    answer = await api.get("/v1/files", params={"after": "file-none"})
    assert answer.status_code == 404
    assert answer.json()["error"] == {**error("No such File object: file-none"), "param": "id"}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/content"), ("HEAD", "/content")])
async def test_an_unknown_file_and_another_tenant_s_are_alike_not_there(api: Api, method: str, path: str) -> None:
    foreign = await put_file(api, tenant="other")
    for file_id in ("file-none", foreign.id):
        answer = await api.request(method, f"/v1/files/{file_id}{path}")
        assert answer.status_code == 404
        if method != "HEAD":
            assert answer.json()["error"] == {**error(f"No such File object: {file_id}"), "param": "id"}
    assert await api.backend.state.run(files.read(foreign.id)) == foreign


async def test_an_id_of_another_kind_is_no_file_and_no_upload(api: Api) -> None:
    announced = {"bytes": 0, "filename": "in.jsonl", "purpose": "batch", "mime_type": ""}
    upload_id = (await api.post("/v1/uploads", json=announced)).json()["id"]
    file_id, batch_id = (await upload(api))["id"], await put_batch(api, "file-x")
    for other in (upload_id, batch_id):
        assert (await api.get(f"/v1/files/{other}")).status_code == 404
        assert (await api.delete(f"/v1/files/{other}")).status_code == 404
    for other in (file_id, batch_id):
        assert (await api.post(f"/v1/uploads/{other}/cancel")).status_code == 404


async def test_each_tenant_lists_its_own_files(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="one:key-of-one,two:key-of-two") as api:
        listed: dict[str, list[str]] = {}
        for tenant in ("one", "two"):
            api.headers["authorization"] = f"Bearer key-of-{tenant}"
            file = await upload(api)
            listed[tenant] = [each["id"] for each in (await api.get("/v1/files")).json()["data"]]
            assert listed[tenant] == [file["id"]]
        for path in ("", "/content"):
            assert (await api.get(f"/v1/files/{listed['one'][0]}{path}")).status_code == 404
        assert (await api.get("/v1/files", params={"after": listed["one"][0]})).status_code == 404


async def test_a_deleted_file_is_gone_everywhere(api: Api) -> None:
    file = await upload(api)
    answer = await api.delete(f"/v1/files/{file['id']}", headers={"content-type": "application/json"})
    assert answer.json() == {"id": file["id"], "object": "file", "deleted": True}
    for path in ("", "/content"):
        assert (await api.get(f"/v1/files/{file['id']}{path}")).status_code == 404
    assert (await api.delete(f"/v1/files/{file['id']}")).status_code == 404
    assert remains(api) == []


async def test_a_deleted_input_keeps_its_bytes_until_its_batch_has_ended(api: Api) -> None:
    file = await upload(api)
    await put_batch(api, "file-other")
    batch_id = await put_batch(api, file["id"])
    state, blobs = api.backend.state, api.backend.blobs
    assert (await api.delete(f"/v1/files/{file['id']}")).json()["deleted"] is True
    for path in ("", "/content"):
        assert (await api.get(f"/v1/files/{file['id']}{path}")).status_code == 404
    assert (await api.get("/v1/files")).json()["data"] == []
    for later_s in (0, 61):
        await service.expire_files(state, blobs, time.time() + later_s)
        assert await blobs.get(paths.file(file["id"])) == LINE
    with redis.Redis.from_url(api.backend.settings.redis_url) as client:
        client.hset(keys.batch(batch_id), "status", "completed")
    await service.expire_files(state, blobs, time.time() + 122)
    assert not [name for name in remains(api) if file["id"] in str(name)]


async def test_a_file_that_a_batch_writes_is_not_deleted(api: Api) -> None:
    file = await put_file(api, status="uploaded", batch_id="batch_x")
    assert (await api.delete(f"/v1/files/{file.id}")).status_code == 409


async def test_bytes_of_a_killed_server_are_deleted_when_their_reservation_is_over(api: Api) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    kept = await upload(api, fields={"purpose": "vision"})
    incoming = IncomingFile(api.backend)
    await incoming.take(content(), 9)
    state, blobs = api.backend.state, api.backend.blobs
    await service.expire_files(state, blobs, time.time() + RESERVED_S - 60)
    assert await blobs.get(paths.file(incoming.id)) == b"x"
    await service.expire_files(state, blobs, time.time() + RESERVED_S + 1)
    assert (await api.get(f"/v1/files/{kept['id']}/content")).content == LINE
    assert len(remains(api)) == 3  # the kept file's bytes, hash and listing


async def test_an_expired_file_is_gone_at_once_and_its_bytes_with_the_next_sweep(api: Api) -> None:
    file = await put_file(api, expires_at=int(time.time()) - 1)
    await api.backend.blobs.put(paths.file(file.id), LINE)
    for path in ("", "/content"):
        assert (await api.get(f"/v1/files/{file.id}{path}")).status_code == 404
    assert (await api.delete(f"/v1/files/{file.id}")).status_code == 404
    assert (await api.get("/v1/files")).json()["data"] == []
    for _ in range(2):
        await service.expire_files(api.backend.state, api.backend.blobs, time.time())
    assert remains(api) == []


async def test_a_reservation_that_outlived_its_file_s_writing_harms_no_file(api: Api) -> None:
    for_ever, expiring = await put_file(api), await put_file(api, expires_at=int(time.time()) + DAY_S)
    state = api.backend.state
    await state.run_all(
        [files.forget_expiry([expiring.id]), *(files.reserve(each.id, 1) for each in (for_ever, expiring))]
    )
    await service.expire_files(state, api.backend.blobs, time.time())
    assert await state.run_all([files.read(for_ever.id), files.read(expiring.id)]) == [for_ever, expiring]
    await service.expire_files(state, api.backend.blobs, time.time() + 2 * DAY_S)
    assert await state.run_all([files.read(for_ever.id), files.read(expiring.id)]) == [for_ever, None]
