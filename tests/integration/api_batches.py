"""What the tests of the batches' routes begin with: input files, batches in any status, and how refusals look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from batchord.contract import DEFAULT_TENANT, BatchObject, new_batch_id
from batchord.creation import Terms
from batchord.lifecycle import Status
from batchord.service import files
from batchord.state import batches, keys
from batchord.state.calls import Call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.api import Api

CHAT = "/v1/chat/completions"
TENANTS = "one:sk-one,two:sk-two"
REQUESTS = [{"custom_id": name, "body": {"model": "m", "messages": []}} for name in ("a", "b")]
RUNNING = [status for status in Status if not status.is_terminal]
ENDED = [status for status in Status if status.is_terminal]


def as_tenant(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer sk-{name}"}


async def stored(api: Api, content: bytes = b"", *, purpose: str = "batch", tenant: str = DEFAULT_TENANT) -> str:
    """Give the id of a new file."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    file = await files.store(
        api.backend, tenant, filename="in.jsonl", purpose=purpose, expires_after_s=None, content=chunks()
    )
    return file.id


async def order(api: Api, **changes: Any) -> dict[str, Any]:
    """Give the body of a request for a batch, of a new file where the changes name none."""
    body = {"endpoint": CHAT, "completion_window": "24h", **changes}
    return body if "input_file_id" in body or "requests" in body else {"input_file_id": await stored(api), **body}


async def entered(api: Api, status: Status, **changes: Any) -> BatchObject:
    """Give a new batch, put into this status without the way there; `at` is its time of creation."""
    at = changes.pop("at", time.time())
    batch = Terms(CHAT, "24h").batch(new_batch_id(), "file-in", at).model_copy(update=changes)
    await api.backend.state.run_all(batches.enter(batch, at))
    await put_into(api, batch.id, status)
    return batch


async def put_into(api: Api, batch_id: str, status: Status) -> None:
    """Move a batch without the way there."""
    await api.backend.state.run(Call(("HSET", keys.batch(batch_id), "status", status, f"{status}_at", 1), bool))
    if status.is_terminal:
        await api.backend.state.run(Call(("ZREM", keys.ACTIVE, batch_id), bool))


def refusal(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


async def batch_ids(api: Api) -> list[str]:
    return [batch["id"] for batch in (await api.get("/v1/batches")).json()["data"]]


async def file_ids(api: Api) -> list[str]:
    return [
        file.decode()
        for file in await api.backend.state.run(Call(("ZRANGE", keys.tenant_files("default"), 0, -1), list))
    ]
