"""Every route of the API with a request that it takes, and something of each kind to ask it for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from batchord import lifecycle
from batchord.lifecycle import Status
from batchord.state import batches

if TYPE_CHECKING:
    import httpx2

    from tests.integration.api import Api

KEYS: Final = "team-a:sk-owner,team-b:sk-other"
LINE: Final = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}\n'
NEW_BATCH: Final = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
UNKNOWN: Final = {"file_id": "file-" + "0" * 22, "upload_id": "upload_" + "0" * 32, "batch_id": "batch_" + "0" * 32}

ROUTES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("GET", "/v1/files"): {},
    ("POST", "/v1/files"): {"files": {"file": ("in.jsonl", LINE)}, "data": {"purpose": "batch"}},
    ("GET", "/v1/files/{file_id}"): {},
    ("DELETE", "/v1/files/{file_id}"): {},
    ("GET", "/v1/files/{file_id}/content"): {},
    ("HEAD", "/v1/files/{file_id}/content"): {},
    ("POST", "/v1/files/{file_id}/cost-estimate"): {},
    ("POST", "/v1/uploads"): {
        "json": {"bytes": 1, "filename": "in.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    },
    ("POST", "/v1/uploads/{upload_id}/parts"): {"files": {"data": ("data", b"x")}},
    ("POST", "/v1/uploads/{upload_id}/complete"): {"json": {"part_ids": []}},
    ("POST", "/v1/uploads/{upload_id}/cancel"): {},
    ("GET", "/v1/batches"): {},
    ("POST", "/v1/batches"): {
        "json": {**NEW_BATCH, "requests": [{"custom_id": "a", "body": {"model": "m", "messages": []}}]}
    },
    ("GET", "/v1/batches/{batch_id}"): {},
    ("DELETE", "/v1/batches/{batch_id}"): {},
    ("POST", "/v1/batches/{batch_id}/cancel"): {},
    ("GET", "/v1/batches/{batch_id}/events"): {},
    ("GET", "/v1/batches/{batch_id}/results"): {},
    ("POST", "/v1/batches/{batch_id}/retry"): {},
    ("POST", "/v1/batches/{batch_id}/retry-requests"): {"json": {"custom_ids": ["a"]}},
    ("GET", "/v1/batches/{batch_id}/analytics"): {},
    ("GET", "/v1/models"): {},
    ("GET", "/v1/models/{model}"): {},
    ("GET", "/v1/providers"): {},
    ("GET", "/v1/providers/{provider}"): {},
}


async def ask(api: Api, method: str, path: str, key: str | None, ids: dict[str, str]) -> httpx2.Response:
    """Send one request of the table."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    content = ROUTES[method, path.partition("?")[0]]
    return await api.request(
        method, path.format(**UNKNOWN | {"model": "m", "provider": "p"} | ids), headers=headers, **content
    )


async def made(api: Api) -> dict[str, str]:
    """Give the ids of a file, an upload and a batch of the owner; the batch has ended."""
    file = (await ask(api, "POST", "/v1/files", "sk-owner", {})).json()["id"]
    upload = (await ask(api, "POST", "/v1/uploads", "sk-owner", {})).json()["id"]
    batch = (await ask(api, "POST", "/v1/batches", "sk-owner", {})).json()["id"]
    assert await api.backend.state.run(batches.transition(batch, lifecycle.to(Status.FAILED), time.time()))
    return {"file_id": file, "upload_id": upload, "batch_id": batch}
