"""The API in trouble: Redis or the storage away, clients that vanish or fall silent. Nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import struct
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from app.errors import RETRY_AFTER_S
from app.requests import BoundedBody
from batchord.embedded import EmbeddedValkey
from batchord.service import files, uploads
from batchord.service.incoming import RESERVED_S
from batchord.state import keys
from batchord.storage.blobs import _RETRY
from tests.acceptance.fleet import run_s3
from tests.integration.api import open_api
from tests.integration.api_files import BOUNDARY, MULTIPART, Client, form, remains, upload
from tests.integration.api_routes import KEYS, NEW_BATCH, ROUTES, ask, made
from tests.integration.api_uploads import LIFE_S, cancel, objects, with_parts
from tests.integration.test_app_process import environment, post, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from http.client import HTTPConnection

    import httpx2

    from tests.integration.api import Api

BOUND_S = 20.0
AWAY = "The server is not available for now. Please try again later."
OPENING = form(("purpose", None, b"batch"), ("file", "in.jsonl", b""))[: -len(f"\r\n--{BOUNDARY}--\r\n")]


def assert_away(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == str(RETRY_AFTER_S)
    assert answer.headers["x-request-id"]
    if answer.request.method != "HEAD":
        error = {"message": AWAY, "type": "server_error", "param": None, "code": None}
        assert answer.json() == {"error": error}


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("api_keys", ["", KEYS])
async def test_without_redis_every_route_says_when_to_ask_again(
    tmp_path: Path, method: str, path: str, api_keys: str
) -> None:
    async with open_api(f"unix://{tmp_path}/none.sock", tmp_path, api_keys=api_keys) as api:
        assert_away(await ask(api, method, path, "sk-owner", {}))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("DELETE", "/v1/files/{file_id}"),
        ("GET", "/v1/files/{file_id}/content"),
        ("GET", "/v1/files/{file_id}/content?limit=1"),
        ("HEAD", "/v1/files/{file_id}/content"),
        ("POST", "/v1/files/{file_id}/cost-estimate"),
        ("POST", "/v1/uploads/{upload_id}/parts"),
        ("POST", "/v1/batches"),
        ("DELETE", "/v1/batches/{batch_id}"),
    ],
)
async def test_without_the_storage_each_route_that_needs_it_says_when_to_ask_again(
    valkey: EmbeddedValkey, tmp_path: Path, method: str, path: str
) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        ids = await made(api)
        shutil.rmtree(tmp_path / "storage")
        (tmp_path / "storage").write_text("a file where the folder was")
        assert_away(await ask(api, method, path, "sk-owner", ids))


async def test_without_its_s3_a_server_says_when_to_ask_again(
    valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_RETRY, "retry_timeout", timedelta(seconds=1))
    async with AsyncExitStack() as stack:
        with run_s3("bucket") as variables:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            api = await stack.enter_async_context(open_api(valkey.url, tmp_path, storage_url="s3://bucket/place"))
            path = f"/v1/files/{(await upload(api))['id']}/content"
            assert (await api.get(path)).status_code == 200
        stored = api.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", b"x")})
        for answer in await asyncio.gather(stored, api.get(path), api.get(path, params={"skip": 1})):
            assert_away(answer)


async def test_an_upload_is_cancelled_though_its_bytes_cannot_be_deleted_now(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        upload_id, _ = await with_parts(api)
        (tmp_path / "storage").rename(tmp_path / "elsewhere")
        (tmp_path / "storage").write_text("a file where the folder was")
        assert (await cancel(api, upload_id)).json()["status"] == "cancelled"
        (tmp_path / "storage").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "storage")
        assert objects(tmp_path) != []
        await uploads.expire_uploads(api.backend.state, api.backend.blobs, time.time() + 2 * LIFE_S)
        assert objects(tmp_path) == []


async def test_redis_lost_in_mid_upload_is_told_and_leaves_nothing_once_it_is_back(tmp_path: Path) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield OPENING + b"x" * 1_000_000
        server.__exit__()
        yield b"x" * 1_000_000 + f"\r\n--{BOUNDARY}--\r\n".encode()

    server = EmbeddedValkey(tmp_path / "redis")
    async with open_api(server.url, tmp_path) as api:
        with server:
            assert_away(await api.post("/v1/files", content=content(), headers=MULTIPART))
        with server:
            await files.expire_files(api.backend.state, api.backend.blobs, time.time() + RESERVED_S + 1)
            assert remains(api) == []


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/uploads"])
async def test_a_client_that_falls_silent_is_told_and_leaves_nothing(
    valkey: EmbeddedValkey, tmp_path: Path, path: str
) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        client = Silent(api, [OPENING, b"x" * 1_000_000], hangs_up=False)
        assert await client.post(path) == 408
    assert remains(api) == []


class Silent(Client):
    """A client that stops in the middle, but does not hang up; the server is one of little patience."""

    def __init__(self, api: Api, body: list[bytes], *, hangs_up: bool) -> None:
        super().__init__(api, [*body, b""], hangs_up=hangs_up)
        self._app = BoundedBody(self._app, most_bytes=10**9, silence_s=0.01)

    async def _receive(self) -> dict[str, Any]:
        if self.unread == 1:
            await asyncio.Event().wait()
        return await super()._receive()


async def test_a_whole_body_may_be_worked_on_for_as_long_as_that_takes(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        body = form(("purpose", None, b"batch"), ("file", "in.jsonl", b"x"))
        client = Client(api, [body], hangs_up=False)
        client._app = BoundedBody(client._app, most_bytes=10**9, silence_s=0.01)
        assert await client.post("/v1/files") == 200


class Served:
    """The API in a process of its own, and what is seen of it from outside."""

    def __init__(self, process_id: int, connection: HTTPConnection, redis: Any, storage: Path) -> None:
        self.connection, self.redis, self._storage = connection, redis, storage
        self._open = Path(f"/proc/{process_id}/fd")

    @property
    def objects(self) -> list[Path]:
        """Every object that is in the storage, or on its way there."""
        return [path for path in self._storage.rglob("*") if path.is_file()]

    @property
    def open_files(self) -> int:
        return len(list(self._open.iterdir()))

    def send(self, request: str, body: bytes = b"", *, length: int = 0) -> socket.socket:
        """Send the beginning of a request, of whose body more is announced."""
        headers = f"Host: localhost\r\nContent-Type: {MULTIPART['content-type']}\r\nContent-Length: {length}\r\n\r\n"
        connected = socket.create_connection((self.connection.host, self.connection.port), BOUND_S)
        connected.sendall(f"{request} HTTP/1.1\r\n{headers}".encode() + body)
        return connected


@pytest.fixture
def served(valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Served]:
    """Run the API; it ends well, and has logged no failure."""
    log = tmp_path / "log"
    env = {**environment(valkey, tmp_path), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with log.open("wb") as stderr, running(env, log=stderr) as (process, connection):
        connection.request("GET", "/readyz")
        connection.getresponse().read()
        with Redis.from_url(valkey.url, decode_responses=True) as redis:
            yield Served(process.pid, connection, redis, tmp_path / "storage")
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0
    assert "Traceback" not in log.read_text()


def leave(connected: socket.socket, *, abruptly: bool) -> None:
    """Close a connection, at once and with a reset where that is how the client leaves."""
    if abruptly:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for what a server does some time after its client has left."""
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_that_vanishes_in_mid_upload_leaves_nothing(served: Served, *, abruptly: bool) -> None:
    client = served.send("POST /v1/files", OPENING + b"x" * 12_000_000, length=50_000_000)
    until(lambda: served.redis.exists(keys.FILES) and served.objects)
    leave(client, abruptly=abruptly)
    until(lambda: not served.redis.exists(keys.FILES) and not served.objects)


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_that_vanishes_in_mid_part_leaves_nothing(served: Served, *, abruptly: bool) -> None:
    body = json.dumps({"bytes": 50_000_000, "filename": "a", "mime_type": "a", "purpose": "batch"})
    upload_id = post(served.connection, "/v1/uploads", body.encode())["id"]
    opening = form(("data", "a", b""))[: -len(f"\r\n--{BOUNDARY}--\r\n")]
    client = served.send(f"POST /v1/uploads/{upload_id}/parts", opening + b"x" * 12_000_000, length=50_000_000)
    until(lambda: served.objects)
    leave(client, abruptly=abruptly)
    until(lambda: not served.objects)
    assert not any(name.startswith("part:") for name in served.redis.hkeys(keys.upload(str(upload_id))))


@pytest.mark.parametrize("abruptly", [False, True])
def test_clients_that_vanish_in_mid_download_or_mid_events_hold_nothing(served: Served, *, abruptly: bool) -> None:
    request = {"custom_id": "a", "body": {"model": "m", "messages": ["x" * 10_000_000]}}
    batch = post(served.connection, "/v1/batches", json.dumps({**NEW_BATCH, "requests": [request]}).encode())
    most = served.open_files + 16  # as many connections to Redis as there may be
    for path in (f"files/{batch['input_file_id']}/content", f"batches/{batch['id']}/events"):
        clients = [served.send(f"GET /v1/{path}") for _ in range(40)]
        assert all(client.recv(100).startswith(b"HTTP/1.1 200 OK") for client in clients)
        assert served.open_files > most
        for client in clients:
            leave(client, abruptly=abruptly)
        until(lambda: served.open_files <= most)
