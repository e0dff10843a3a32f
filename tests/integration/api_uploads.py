"""What the tests of uploads share: an upload and its parts, and what became of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis

from batchord.state import keys

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    from tests.integration.api import Api

PARTS = [b"first,", b"second,", b"third"]
WHOLE = b"".join(PARTS)
LIFE_S = 3_600


def announcement(**changes: Any) -> dict[str, Any]:
    return {"bytes": len(WHOLE), "filename": "in.jsonl", "purpose": "batch", "mime_type": "text/jsonl", **changes}


async def created(api: Api, **changes: Any) -> dict[str, Any]:
    answer = await api.post("/v1/uploads", json=announcement(**changes))
    assert answer.status_code == 200, answer.text
    upload: dict[str, Any] = answer.json()
    return upload


async def send_part(api: Api, upload_id: str, content: bytes) -> httpx2.Response:
    return await api.post(f"/v1/uploads/{upload_id}/parts", files={"data": content})


async def sent(api: Api, upload_id: str, *contents: bytes) -> list[str]:
    """Send parts one after another and give their ids."""
    return [(await send_part(api, upload_id, content)).json()["id"] for content in contents]


async def with_parts(api: Api, **changes: Any) -> tuple[str, list[str]]:
    """Give an upload whose three parts have come."""
    upload_id = (await created(api, **changes))["id"]
    return upload_id, await sent(api, upload_id, *PARTS)


async def complete(api: Api, upload_id: str, part_ids: list[str], **more: Any) -> httpx2.Response:
    return await api.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": part_ids, **more})


async def cancel(api: Api, upload_id: str) -> httpx2.Response:
    return await api.post(f"/v1/uploads/{upload_id}/cancel", headers={"content-type": "application/json"})


async def listed(api: Api) -> list[str]:
    return [file["id"] for file in (await api.get("/v1/files")).json()["data"]]


def objects(folder: Path) -> list[str]:
    """Give the path of every stored object."""
    storage = folder / "storage"
    return sorted(str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file())


def told(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error["message"]


def let_expire(api: Api, upload_id: str) -> None:
    with redis.Redis.from_url(api.backend.settings.redis_url) as client:
        client.hset(keys.upload(upload_id), "expires_at", int(time.time()) - 1)
