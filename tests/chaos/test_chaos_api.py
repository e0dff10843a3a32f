"""An API that is killed while a file comes and while a batch is created; its client asks again, as clients do."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from batchord.state import keys
from tests.acceptance.cli import PATIENCE_S, chat, command, environment, wait_until
from tests.acceptance.server import jsonl
from tests.chaos.checks import (
    assert_answered_once,
    assert_drains,
    assert_empties,
    assert_sent_again_only_with_an_excuse,
    files_of,
    left_in_redis,
    left_in_storage,
    left_processes,
)
from tests.chaos.schedule import last, say, sized
from tests.chaos.stage import Stage
from tests.upstream import run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.schedule import Schedule

LINES = 100
PADDING_BYTES = 120_000
"""So that a file has more than one part of the storage's, and a killed writer leaves some behind."""
KILLS = sized(1, 10)
_BOUNDARY = "batchord-chaos"


class Api:
    """A `batchord api` process on a port of its own, started again after each death."""

    def __init__(self, stage: Stage, port: int) -> None:
        self.port = port
        self._stage = stage

    def start(self) -> None:
        with (self._stage.path / "api.log").open("ab") as log:
            self._process = subprocess.Popen(
                command(["api", "--port", str(self.port)]), stdout=log, stderr=log, env=environment(self._stage.env)
            )
        wait_until(self._is_up, "the API answers")

    def _is_up(self) -> bool:
        try:
            return self.ask("GET", "/healthz") is not None
        except OSError:
            return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def drain(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
        """Give the answer, which must be a success."""
        with closing(self.connection()) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            read = answer.read()
        assert answer.status == 200, read
        return dict(json.loads(read))

    @contextmanager
    def killed_during(self, path: str, body: bytes, **headers: str) -> Iterator[http.client.HTTPConnection]:
        """Begin a POST, of which the block sends as much of the body as it likes; then kill, and start again."""
        with closing(self.connection()) as connection:
            connection.putrequest("POST", path)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            yield connection
            self.kill()
        self.start()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with run_upstream() as upstream, Stage(tmp_path, upstream) as stage:
        stage.lines = LINES
        yield stage


@pytest.fixture
def api(stage: Stage, unused_tcp_port: int) -> Iterator[Api]:
    api = Api(stage, unused_tcp_port)
    api.start()
    yield api
    api.kill()


def upload_body() -> bytes:
    lines = [chat(number) for number in range(LINES)]
    for line in lines:
        line["body"]["user"] = "x" * PADDING_BYTES
    fields = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    return (fields + head).encode() + jsonl(lines) + f"\r\n--{_BOUNDARY}--\r\n".encode()


def let_expire(stage: Stage) -> None:
    """Let the time be over of every file that is on the list of those that go, but for those of the batch."""
    with stage.redis() as redis:
        for file_id in set(map(str, redis.zrange(keys.FILES, 0, -1))) - files_of(stage.batch.read().batch):
            redis.zadd(keys.FILES, {file_id: 1})
            if redis.exists(keys.file(file_id)):
                redis.hset(keys.file(file_id), "expires_at", 1)


def test_an_api_killed_in_uploads_and_creates_makes_one_batch_and_leaves_no_bytes_for_ever(
    stage: Stage, api: Api, schedule: Schedule
) -> None:
    body = upload_body()
    form = {"Content_Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    for _ in range(KILLS):
        most = round(len(body) * schedule.between(0.3, 1.2))
        with api.killed_during("/v1/files", body, **form) as connection:
            connection.send(body[:most])
        say(f"killed the API after {min(most, len(body))} of {len(body)} bytes of an upload")
    file_id = api.ask("POST", "/v1/files", body, **form)["id"]

    order = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    asked = json.dumps(order).encode()
    headers = {"Content_Type": "application/json", "Idempotency_Key": f"chaos-{schedule.seed}"}
    for _ in range(KILLS):
        with api.killed_during("/v1/batches", asked, **headers) as connection:
            connection.send(asked)
            last(schedule.between(0, 1.2))  # it waits for the disk up to a second
    batch_id = api.ask("POST", "/v1/batches", asked, **headers)["id"]
    assert api.ask("POST", "/v1/batches", asked, **headers)["id"] == batch_id

    stage.assemble(1)
    stage.batch = stage.producer.batch(batch_id)
    stage.batch.wait(timeout_s=PATIENCE_S)
    assert [batch["id"] for batch in api.ask("GET", "/v1/batches")["data"]] == [batch_id]
    assert_answered_once(stage.batch, LINES)
    assert_sent_again_only_with_an_excuse(stage)
    let_expire(stage)
    assert_empties("what is left in Redis", lambda: left_in_redis(stage, stage.batch))
    assert_empties("what is left in the storage", lambda: left_in_storage(stage, stage.batch))
    assert api.drain() == 0
    assert_drains(stage)
    assert_empties("the processes that are left", lambda: left_processes(stage))
