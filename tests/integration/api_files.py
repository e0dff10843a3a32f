"""What the tests of files share: forms as a client may send them, a client that may hang up, and what remains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis

from batchord.contract import FileObject, new_file_id
from batchord.errors import StateUnavailableError
from batchord.state import files
from batchord.state.connection import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchord.state.calls import Call
    from tests.integration.api import Api

LINE = b'{"custom_id":"a"}\n'
BOUNDARY = "b0undary"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def remains(api: Api) -> list[str]:
    """Give every key and every stored object that there is."""
    settings = api.backend.settings
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        stored = [str(path) for path in Path(urlsplit(settings.blobs_url).path).rglob("*") if path.is_file()]
        return [*client.scan_iter("*"), *stored]


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--\r\n") -> bytes:
    """Give a form's bytes: each part's name, file name, and content, in this order."""
    body = b""
    for name, filename, content in parts:
        disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
        body += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}".encode() + end


async def upload(
    api: Api, content: bytes = LINE, filename: str = "in.jsonl", fields: Mapping[str, str] | None = None
) -> dict[str, Any]:
    answer = await api.post(
        "/v1/files", data={"purpose": "batch", **(fields or {})}, files={"file": (filename, content)}
    )
    assert answer.status_code == 200, answer.text
    file: dict[str, Any] = answer.json()
    return file


async def put_file(api: Api, **changes: Any) -> FileObject:
    """Put a file's record there, without bytes."""
    file = FileObject(id=new_file_id(), bytes=0, created_at=1_000, filename="in.jsonl", purpose="batch")
    file = file.model_copy(update=changes)
    await api.backend.state.run_all(files.write(file))
    return file


def error(text: str) -> Mapping[str, Any]:
    return {"message": text, "type": "invalid_request_error", "param": None, "code": None}


class Client:
    """A client of the ASGI application that sends what it likes, and may hang up."""

    def __init__(self, api: Api, body: list[bytes], *, hangs_up: bool, length: int | None = None) -> None:
        self._app = api._transport.app  # type: ignore[attr-defined]  # the transport of `open_api`
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": hangs_up or number < len(body) - 1}
            for number, chunk in enumerate(body)
        ]
        self._length = length
        self.sent: list[Any] = []

    async def _receive(self) -> dict[str, Any]:
        return self._messages.pop(0) if self._messages else {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def post(self, path: str) -> int | None:
        """Give the answer's status, or None where none was sent."""
        headers = [(name.encode(), value.encode()) for name, value in MULTIPART.items()]
        if self._length is not None:
            headers.append((b"content-length", str(self._length).encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("batchord", 80),
        }
        await self._app(scope, self._receive, self._send)
        starts = [message["status"] for message in self.sent if message["type"] == "http.response.start"]
        return starts[0] if starts else None

    @property
    def unread(self) -> int:
        """How many of the body's chunks the server did not read."""
        return len(self._messages)


class Lossy(State):
    """A connection that breaks once: after the server has done what it was sent, before it could say so."""

    def __init__(self, redis_url: str, lost: int) -> None:
        super().__init__(redis_url)
        self._until_lost = lost

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        answers = await super().run_all(calls)
        self._until_lost -= 1
        if self._until_lost == -1:
            raise StateUnavailableError("The answer was lost.")
        return answers
