"""Uploads over HTTP: what may be announced and sent, and which file the parts make."""

from __future__ import annotations

import asyncio
from hashlib import md5
from typing import TYPE_CHECKING, Any

import pytest

from batchord.storage import paths
from tests.integration.api import Api, open_api
from tests.integration.api_uploads import (
    LIFE_S,
    PARTS,
    WHOLE,
    announcement,
    cancel,
    complete,
    created,
    listed,
    objects,
    send_part,
    sent,
    told,
    with_parts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path, max_part_bytes=1_000, max_upload_bytes=10_000) as api:
        yield api


async def test_an_upload_and_its_parts_are_told_with_every_key(api: Api) -> None:
    upload = await created(api)
    assert upload == {
        "id": upload["id"],
        "object": "upload",
        "bytes": len(WHOLE),
        "created_at": upload["created_at"],
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "pending",
        "expires_at": upload["created_at"] + LIFE_S,
    }
    part = (await send_part(api, upload["id"], b"x")).json()
    assert part == {
        "id": part["id"],
        "object": "upload.part",
        "created_at": part["created_at"],
        "upload_id": upload["id"],
    }


@pytest.mark.parametrize(
    ("purpose", "expires_after", "life_s"),
    [("batch", None, 30 * 86_400), ("user_data", None, None), ("batch", 7_200, 7_200)],
)
async def test_the_file_is_as_it_was_announced_and_as_old_as_the_upload(
    api: Api, purpose: str, expires_after: int | None, life_s: int | None
) -> None:
    expiry = {"expires_after": {"anchor": "created_at", "seconds": expires_after}} if expires_after else {}
    upload = await created(api, purpose=purpose, **expiry)
    ended = (await complete(api, upload["id"], await sent(api, upload["id"], *PARTS))).json()
    file = ended["file"]
    assert ended == {**upload, "status": "completed", "file": file}
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(WHOLE),
        "created_at": upload["created_at"],
        "expires_at": None if life_s is None else upload["created_at"] + life_s,
        "filename": "in.jsonl",
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
    assert (await api.get(f"/v1/files/{file['id']}")).json() == file
    assert (await api.get(f"/v1/files/{file['id']}/content")).content == WHOLE
    assert await listed(api) == [file["id"]]


async def test_parts_may_come_at_once_and_only_their_named_order_counts(api: Api, tmp_path: Path) -> None:
    upload_id = (await created(api))["id"]
    answers = await asyncio.gather(*(send_part(api, upload_id, content) for content in [*PARTS[::-1], b"not named"]))
    part_ids = [answer.json()["id"] for answer in answers]
    file_id = (await complete(api, upload_id, part_ids[2::-1])).json()["file"]["id"]
    assert (await api.get(f"/v1/files/{file_id}/content")).content == WHOLE
    assert objects(tmp_path) == [paths.file(file_id)]


async def test_an_empty_file_needs_no_part(api: Api) -> None:
    upload_id = (await created(api, bytes=0))["id"]
    file_id = (await complete(api, upload_id, [])).json()["file"]["id"]
    assert (await api.get(f"/v1/files/{file_id}/content")).content == b""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"purpose": "nonsense"}, "'nonsense' is not one of"),
        ({"filename": "in.csv"}, "Invalid file format for Batch API. Must be .jsonl"),
        ({"bytes": 10_001}, "File is too large."),
        ({"bytes": -1}, "Invalid 'bytes': integer below minimum value."),
        ({"bytes": "many"}, "Invalid type for 'bytes'"),
        ({"filename": ""}, "Invalid 'filename'"),
        ({"filename": None}, "Invalid type for 'filename'"),
        ({"expires_after": {"anchor": "created_at"}}, "Missing required parameter: 'expires_after.seconds'."),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "Invalid 'expires_after.seconds'"),
    ],
)
async def test_an_upload_that_may_not_be_is_refused_at_once(api: Api, changes: dict[str, Any], message: str) -> None:
    status_code, text = told(await api.post("/v1/uploads", json=announcement(**changes)))
    assert (status_code, text.startswith(message)) == (400, True), text


@pytest.mark.parametrize("missing", ["bytes", "filename", "purpose", "mime_type"])
async def test_an_upload_s_announcement_must_be_whole(api: Api, missing: str) -> None:
    body = announcement()
    del body[missing]
    answer = await api.post("/v1/uploads", json=body)
    assert told(answer) == (400, f"Missing required parameter: '{missing}'.")
    assert answer.json()["error"]["code"] == "missing_required_parameter"


async def test_the_parts_must_make_what_was_announced_or_nothing_is_written(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    other_id, other_ids = await with_parts(api)
    before = objects(tmp_path)
    for named, message in [
        ([*part_ids, "part_x"], "Part 'part_x' does not belong to this upload."),
        ([*part_ids[:2], other_ids[2]], f"Part '{other_ids[2]}' does not belong to this upload."),
        ([part_ids[0], *part_ids], f"Part '{part_ids[0]}' is named twice."),
        (part_ids[:2], "The uploaded parts total 13 bytes, but the upload was created with 18 bytes."),
        ([], "The uploaded parts total 0 bytes, but the upload was created with 18 bytes."),
    ]:
        assert told(await complete(api, upload_id, named)) == (400, message)
    assert objects(tmp_path) == before
    for each, ids in ((upload_id, part_ids), (other_id, other_ids)):
        assert (await complete(api, each, ids)).status_code == 200


async def test_a_wrong_checksum_writes_nothing_and_the_upload_stays_pending(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    right = md5(WHOLE, usedforsecurity=False).hexdigest()
    before = objects(tmp_path)
    for wrong in ("0" * 32, "nonsense", right[:-1]):
        assert told(await complete(api, upload_id, part_ids, md5=wrong)) == (400, "The MD5 checksum does not match.")
        assert (objects(tmp_path), await listed(api)) == (before, [])
    assert told(await complete(api, upload_id, part_ids[::-1], md5=right))[0] == 400
    assert (await complete(api, upload_id, part_ids, md5=right.upper())).json()["status"] == "completed"


@pytest.mark.parametrize("body", [{}, {"part_ids": None}, {"part_ids": "part_x"}, {"part_ids": [1]}])
async def test_a_completion_names_its_parts(api: Api, body: dict[str, Any]) -> None:
    upload_id = (await created(api, bytes=0))["id"]
    answer = await api.post(f"/v1/uploads/{upload_id}/complete", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("part_ids")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"data": b"x" * 1_001}, (400, "File is too large.")),
        ({"file": b"x"}, (400, "Missing required parameter: 'data'.")),
    ],
)
async def test_a_part_that_may_not_be_is_refused_and_leaves_nothing(
    api: Api, tmp_path: Path, files: dict[str, bytes], expected: tuple[int, str]
) -> None:
    upload_id = (await created(api))["id"]
    assert told(await api.post(f"/v1/uploads/{upload_id}/parts", files=files)) == expected
    assert objects(tmp_path) == []


async def test_a_part_without_a_form_is_refused(api: Api) -> None:
    upload_id = (await created(api))["id"]
    assert (await api.post(f"/v1/uploads/{upload_id}/parts", content=b"x")).status_code == 400


async def test_an_unknown_upload_and_another_tenant_s_are_alike_not_there(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="one:key-of-one,two:key-of-two") as api:
        api.headers["authorization"] = "Bearer key-of-one"
        upload_id, part_ids = await with_parts(api)
        api.headers["authorization"] = "Bearer key-of-two"
        for each in ("upload_none", upload_id):
            for answer in (
                await cancel(api, each),
                await complete(api, each, part_ids),
                await send_part(api, each, b"x"),
            ):
                assert told(answer) == (404, f"No such Upload object: {each}")
        api.headers["authorization"] = "Bearer key-of-one"
        file_id = (await complete(api, upload_id, part_ids)).json()["file"]["id"]
        assert await listed(api) == [file_id]
        api.headers["authorization"] = "Bearer key-of-two"
        assert await listed(api) == []
