"""A fleet as its operator runs it: a Valkey, some `batchord worker` processes, and the variables that they share.

And an S3 server of the test's own (moto's), for fleets that keep their bytes there.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import urllib.request
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import msgspec
import redis
from moto.server import ThreadedMotoServer

from batchord import Client
from batchord.broker import celery_url
from batchord.embedded import EmbeddedValkey
from batchord.settings import Settings
from batchord.state import keys
from tests.acceptance.cli import PATIENCE_S, Ended, command, environment, run_command, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

QUICK = {
    "BATCHORD_VISIBILITY_TIMEOUT_S": "6",
    "BATCHORD_CLAIM_S": "4",
    "BATCHORD_STALL_S": "6",
    "BATCHORD_SWEEP_INTERVAL_S": "1",
}
"""Recovery within seconds, where the defaults take a minute."""


class Fleet:
    """One Valkey and one storage folder under `path`, and the workers that a test starts. A context manager."""

    def __init__(self, path: Path, env: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.workers: list[Worker] = []
        self._open = ExitStack()
        self._valkey = EmbeddedValkey(path / "valkey")
        self._storage_url = (path / "storage").as_uri()
        self._providers = path / "providers.toml"
        self._more = {**QUICK, **(env or {})}

    def __enter__(self) -> Self:
        self._open.enter_context(self._valkey)
        return self

    def __exit__(self, *_: object) -> None:
        """End every worker, then the Valkey."""
        for worker in self.workers:
            worker.kill()
        self._open.close()

    @property
    def env(self) -> dict[str, str]:
        """The variables that workers and producers share."""
        return {
            "BATCHORD_REDIS_URL": self._valkey.url,
            "BATCHORD_STORAGE_URL": self._storage_url,
            "BATCHORD_DATA_DIR": str(self.path),
            **self._more,
        }

    @property
    def celery_url(self) -> str:
        """The broker's URL as every stock tool of Celery takes it."""
        return celery_url(self._valkey.url)

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """Give a client for what only an operator at the server sees or sets."""
        with redis.Redis.from_url(self._valkey.url, decode_responses=True) as client:
            yield client

    def client(self) -> Client:
        """Give a producer's client; it ends with the fleet."""
        url = self.env["BATCHORD_STORAGE_URL"]
        client = Client(Settings(redis_url=self._valkey.url, storage_url=url, data_dir=self.path))
        self._open.callback(client.close)
        return client

    def write_providers(self, **tables: Mapping[str, Any]) -> None:
        """Write the providers file that the next worker reads: one table of fields by each provider's name."""
        self._providers.write_text(
            "".join(
                f"[providers.{name}]\n"
                + "".join(f"{field} = {msgspec.json.encode(value).decode()}\n" for field, value in table.items())
                for name, table in tables.items()
            ),
            encoding="utf-8",
        )

    def start(self, count: int = 1) -> list[Worker]:
        """Start workers, and return once each of them is on the list of the living."""
        arguments = ["worker", "--workers", "1", "--providers", str(self._providers)]
        for _ in range(count):
            log = self.path / f"worker-{len(self.workers)}.log"
            self.workers.append(Worker(arguments, log, environment(self.env)))
        started = self.workers[-count:]
        wait_until(lambda: {worker.pid for worker in started} <= self.living(), f"workers live, see {self.path}")
        return started

    def living(self) -> set[int]:
        """The processes of the workers that are on the list of the living."""
        with self.redis() as client:
            return {int(str(name).rsplit("-", 2)[1]) for name in client.zrange(keys.WORKERS, 0, -1)}

    def run(self, *arguments: str) -> Ended:
        """Run one of the producer's commands to its end."""
        return run_command(arguments, env=self.env)


class Worker:
    """A `batchord worker` process; what it prints goes into its log."""

    def __init__(self, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command(arguments), stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env, start_new_session=True
            )
        self.pid = self.process.pid

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)

    def drain(self) -> int:
        """Ask it to end, wait, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def run_s3(bucket: str) -> Iterator[dict[str, str]]:
    """Run an S3 server with one bucket, in a thread; gives the variables by which a store finds it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        urllib.request.urlopen(
            urllib.request.Request(f"http://{host}:{port}/{bucket}", method="PUT"), timeout=PATIENCE_S
        ).close()
        yield {
            "AWS_ENDPOINT": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
        }
    finally:
        server.stop()
