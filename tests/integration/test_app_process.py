"""The API's process: how it starts, and that it ends without breaking a request off."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from batchord.cli.server import listening_environment
from batchord.listener import listen
from batchord.processes import LIFELINE_ENV

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchord.embedded import EmbeddedValkey

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "app"]
PATIENCE_S = 60


def environment(valkey: EmbeddedValkey, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHORD_", "OPENAI_"))}
    return {**kept, "BATCHORD_REDIS_URL": valkey.url, "BATCHORD_DATA_DIR": str(folder)}


@contextmanager
def running(
    env: Mapping[str, str], *inherited: int, log: IO[bytes] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], HTTPConnection]]:
    """Run the API with a socket of ours, and give it with a connection to it."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        fds = (listener.fileno(), *inherited)
        env = {**env, **listening_environment(listener)}
        process = subprocess.Popen(COMMAND, env=env, cwd=ROOT, pass_fds=fds, stderr=log)
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
            yield process, connection
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def post(connection: HTTPConnection, path: str, body: bytes) -> dict[str, object]:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return {"status": answer.status, **json.loads(answer.read())}


def assert_refuses_connections(connection: HTTPConnection) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((connection.host, connection.port))


def test_a_request_in_flight_is_answered_before_the_end(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    with running(environment(valkey, tmp_path)) as (process, connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.putrequest("POST", "/v1/batches")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "2")
        connection.endheaders(b"{")
        with closing(HTTPConnection(connection.host, connection.port, timeout=PATIENCE_S)) as other:
            other.request("GET", "/healthz")  # answered only once the request before it is in the application
            other.getresponse().read()
            process.send_signal(signal.SIGTERM)
            assert other.sock is not None
            assert other.sock.recv(1) == b""  # it has begun to end: idle connections are closed
        assert_refuses_connections(connection)
        connection.send(b"}")
        assert connection.getresponse().status == 400
        assert process.wait(PATIENCE_S) == 0


def test_a_stream_of_events_does_not_hold_the_end_up(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    new = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    lines = [{"custom_id": "a", "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}}]
    env = {**environment(valkey, tmp_path), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with running(env) as (process, connection):
        batch = post(connection, "/v1/batches", json.dumps({**new, "requests": lines}).encode())
        assert batch["status"] == "validating"
        connection.request("GET", f"/v1/batches/{batch['id']}/events")
        events = connection.getresponse()
        assert events.readline() == b"event: progress\n"
        process.send_signal(signal.SIGTERM)
        assert b"event: end" not in events.read()
        assert process.wait(PATIENCE_S) == 0


def test_it_ends_with_its_owner(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    lifeline, owners_end = os.pipe()
    env = {**environment(valkey, tmp_path), LIFELINE_ENV: str(lifeline)}
    with running(env, lifeline) as (process, connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        os.close(lifeline)
        os.close(owners_end)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("BATCHORD_HOST", "0.0.0.0", "there is no API key"),  # noqa: S104 (it is refused)
        ("BATCHORD_API_KEYS", "sk-secret,", "BATCHORD_API_KEYS: entry 2"),
        ("BATCHORD_PORT", "nonsense", "BATCHORD_PORT"),
        ("BATCHORD_PORT", "{taken}", "Cannot serve on 127.0.0.1, port {taken}"),
        ("BATCHORD_STORAGE_URL", "nonsense", "BATCHORD_STORAGE_URL"),
        ("BATCHORD_PROVIDERS", "/nonsense.toml", "/nonsense.toml cannot be read"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_mend(
    valkey: EmbeddedValkey, tmp_path: Path, variable: str, value: str, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {**environment(valkey, tmp_path), "BATCHORD_PORT": "0", variable: value.replace("{taken}", port)}
        ended = subprocess.run(COMMAND, env=env, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 3
    assert said.replace("{taken}", port) in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
    assert "sk-secret" not in ended.stderr.decode()
