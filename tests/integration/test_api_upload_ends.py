"""Uploads over HTTP: an upload ends once, as a file that is whole, or with nothing left; whatever comes between."""

from __future__ import annotations

import asyncio
import time
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
import redis

from batchord.errors import InvalidRequestError, StateUnavailableError
from batchord.service import files as file_service
from batchord.service import uploads as service
from batchord.service.incoming import RESERVED_S
from batchord.state import keys, uploads
from batchord.storage import paths
from tests.integration.api import Api, open_api
from tests.integration.api_files import Lossy
from tests.integration.api_uploads import (
    LIFE_S,
    PARTS,
    cancel,
    complete,
    created,
    let_expire,
    listed,
    objects,
    send_part,
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


async def test_completing_again_gives_the_same_and_other_parts_are_refused(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    first = await complete(api, upload_id, part_ids)
    again = await complete(api, upload_id, part_ids)
    assert (again.status_code, again.json()) == (200, first.json())
    assert told(await complete(api, upload_id, part_ids[::-1])) == (400, "Upload is not pending.")
    file_id = first.json()["file"]["id"]
    assert (await listed(api), objects(tmp_path)) == ([file_id], [paths.file(file_id)])
    await api.delete(f"/v1/files/{file_id}")
    assert (await complete(api, upload_id, part_ids)).json() == first.json()
    assert (await listed(api), objects(tmp_path)) == ([], [])


async def test_two_that_complete_at_once_make_one_file(api: Api, tmp_path: Path) -> None:
    for _ in range(5):
        upload_id, part_ids = await with_parts(api)
        answers = await asyncio.gather(*(complete(api, upload_id, part_ids) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["file"]["id"] for answer in answers}) == 1
    assert sorted(objects(tmp_path)) == sorted(paths.file(file_id) for file_id in await listed(api))
    assert len(objects(tmp_path)) == 5


async def test_of_several_orders_at_once_one_wins_and_its_bytes_are_the_file_s(api: Api, tmp_path: Path) -> None:
    for _ in range(5):
        upload_id, part_ids = await with_parts(api)
        contents = dict(zip(part_ids, PARTS, strict=True))
        orders = [list(order) for order in permutations(part_ids)]
        answers = await asyncio.gather(*(complete(api, upload_id, order) for order in orders))
        won = [(order, answer) for order, answer in zip(orders, answers, strict=True) if answer.status_code == 200]
        assert {told(answer) for answer in answers if answer.status_code != 200} == {(400, "Upload is not pending.")}
        [(order, answer)] = won
        content = await api.get(f"/v1/files/{answer.json()['file']['id']}/content")
        assert content.content == b"".join(contents[part_id] for part_id in order)
    assert sorted(objects(tmp_path)) == sorted(paths.file(file_id) for file_id in await listed(api))


async def test_of_a_completion_and_a_cancel_at_once_one_wins(api: Api, tmp_path: Path) -> None:
    for _ in range(8):
        upload_id, part_ids = await with_parts(api)
        answers = await asyncio.gather(complete(api, upload_id, part_ids), cancel(api, upload_id))
        assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert sorted(objects(tmp_path)) == sorted(paths.file(file_id) for file_id in await listed(api))


async def test_a_completion_cut_short_is_done_by_the_next(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    file_id = (await complete(api, upload_id, part_ids)).json()["file"]["id"]
    upload_key = keys.upload(upload_id)
    with redis.Redis.from_url(api.backend.settings.redis_url) as client:
        client.hset(upload_key, "status", "pending")
        client.hdel(upload_key, "file", "part_ids")
    for part_id, content in zip(part_ids, PARTS, strict=True):
        await api.backend.blobs.put(paths.upload_part(upload_id, part_id), content)
    assert (await complete(api, upload_id, part_ids)).json()["file"]["id"] == file_id
    assert (await listed(api), objects(tmp_path)) == ([file_id], [paths.file(file_id)])


async def test_a_cancelled_upload_keeps_no_bytes_and_takes_none(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    ended = await cancel(api, upload_id)
    assert (ended.status_code, ended.json()["status"], "file" in ended.json()) == (200, "cancelled", False)
    for answer in (
        await cancel(api, upload_id),
        await complete(api, upload_id, part_ids),
        await send_part(api, upload_id, b"x"),
    ):
        assert told(answer) == (400, "Upload is not pending.")
    assert objects(tmp_path) == []


async def test_a_completed_upload_takes_no_parts_and_is_not_cancelled(api: Api) -> None:
    upload_id, part_ids = await with_parts(api)
    await complete(api, upload_id, part_ids)
    for answer in (await cancel(api, upload_id), await send_part(api, upload_id, b"x")):
        assert told(answer) == (400, "Upload is not pending.")


async def test_an_expired_upload_is_gone_but_a_completed_one_is_still_told(api: Api) -> None:
    upload_id, part_ids = await with_parts(api)
    done_id, done_part_ids = await with_parts(api)
    done = await complete(api, done_id, done_part_ids)
    for each in (upload_id, done_id):
        let_expire(api, each)
    for answer in (
        await cancel(api, upload_id),
        await complete(api, upload_id, part_ids),
        await send_part(api, upload_id, b"x"),
    ):
        assert told(answer) == (410, "This upload has expired.")
    assert (await complete(api, done_id, done_part_ids)).json()["file"] == done.json()["file"]


async def test_the_sweep_deletes_the_bytes_of_what_expired_and_of_nothing_else(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    state, blobs = api.backend.state, api.backend.blobs
    await service.expire_uploads(state, blobs, time.time() + LIFE_S - 1)
    assert len(objects(tmp_path)) == 3
    done = (await complete(api, upload_id, part_ids)).json()["file"]["id"]
    await with_parts(api)
    for _ in range(2):
        await service.expire_uploads(state, blobs, time.time() + 2 * LIFE_S)
    assert objects(tmp_path) == [paths.file(done)]
    assert await state.run(uploads.due(9e9, 9)) == []


async def test_a_part_that_comes_as_its_upload_ends_leaves_no_bytes(api: Api, tmp_path: Path) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x"
        await cancel(api, upload_id)
        yield b"y"

    upload_id = (await created(api))["id"]
    with pytest.raises(InvalidRequestError, match="not pending"):
        await service.add_part(api.backend, "default", upload_id, content())
    assert objects(tmp_path) == []


async def test_a_failed_completion_leaves_nothing_once_its_reservation_is_over(api: Api, tmp_path: Path) -> None:
    upload_id, part_ids = await with_parts(api)
    await complete(api, upload_id, part_ids, md5="0" * 32)
    await cancel(api, upload_id)
    await file_service.expire_files(api.backend.state, api.backend.blobs, time.time() + RESERVED_S + 1)
    await service.expire_uploads(api.backend.state, api.backend.blobs, time.time() + 2 * LIFE_S)
    with redis.Redis.from_url(api.backend.settings.redis_url) as client:
        assert client.keys("*") == [keys.upload(upload_id).encode()]  # until its time to live is over
        assert client.ttl(keys.upload(upload_id)) > 0
    assert objects(tmp_path) == []


async def test_a_completion_whose_answers_are_lost_is_done_by_the_next(api: Api, tmp_path: Path) -> None:
    state, files = api.backend.state, 0
    has_failed = True
    while has_failed:
        upload_id, part_ids = await with_parts(api)
        api.backend.state = Lossy(api.backend.settings.redis_url, lost=files)
        try:
            await service.complete(api.backend, "default", upload_id, part_ids)
        except StateUnavailableError:
            pass
        else:
            has_failed = False
        await api.backend.state.aclose()
        api.backend.state = state
        assert (await complete(api, upload_id, part_ids)).json()["status"] == "completed"
        await service.expire_uploads(state, api.backend.blobs, time.time() + 2 * LIFE_S)
        files += 1
        assert len(await listed(api)) == files
        assert objects(tmp_path) == sorted(paths.file(file_id) for file_id in await listed(api))
    assert files > 3
