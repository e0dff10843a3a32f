"""A fleet for the tests of `workers.transport`: the app, and starting its workers and its server.

Run as `-m tests.integration.transport_worker CONFIG.json`, with Celery's options after it, this is a worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery
from kombu import Exchange, Queue

from batchord.embedded import EmbeddedValkey
from workers.pool import AsyncTask
from workers.transport import install
from workers.transport_inflight import IN_FLIGHT
from workers.transport_url import broker_settings

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


def create_app(config: dict[str, Any]) -> Celery:
    """Make the app. `runs` is a file that gets a line for each task begun; `stock_url` is for kombu's own transport."""
    install()
    app = Celery("transport_worker", set_as_current=False)
    stock_url = config.get("stock_url")
    app.conf.update({"broker_url": stock_url} if stock_url else broker_settings(config["redis_url"]))
    app.conf.update(
        worker_pool="workers.pool:TaskPool",
        worker_concurrency=1000,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_acks_late=True,
        worker_disable_rate_limits=True,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": config["visibility_timeout_s"],
            "slots": config["slots"],
            "body_encoding": "utf-8",
        },
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in config["slots"]],
        batchord_drain_timeout_s=config["drain_timeout_s"],
    )
    runs = os.open(config["runs"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @app.task(name="note", base=AsyncTask, shared=False)
    async def note(key: str, seconds: float) -> None:
        os.write(runs, f"{key}\n".encode())
        await asyncio.sleep(seconds)

    @app.task(name="set_slots", base=AsyncTask, shared=False)
    async def set_slots(queue: str, slots: int) -> None:
        IN_FLIGHT.set_slots(queue, slots)

    return app


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


class Server(EmbeddedValkey):
    """The embedded Valkey, and a client to look into it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.client = redis.Redis(unix_socket_path=str(self.socket_path))

    def __exit__(self, *_: object) -> None:
        self.client.close()
        super().__exit__()

    def ask(self, *command: str | float) -> Any:
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis leaves it so

    def size(self, queue: str) -> int:
        return int(self.ask("LLEN", queue))

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """The messages of the queue; the last is the next to be consumed."""
        return [json.loads(message) for message in self.ask("LRANGE", queue, 0, -1)]

    @property
    def unacked(self) -> int:
        return int(self.ask("HLEN", "unacked"))

    def is_empty_of(self, queue: str) -> bool:
        """Whether no message is queued or unacknowledged, at one moment."""
        with self.client.pipeline(transaction=True) as both:
            both.llen(queue)
            both.hlen("unacked")
            return bool(both.execute() == [0, 0])


class Fleet:
    """Workers as processes, and a producer."""

    def __init__(self, server: Server, directory: Path, **config: Any) -> None:
        self.directory = directory
        self.server = server
        self.runs_path = directory / "runs"
        self.config = {
            "redis_url": server.url,
            "runs": str(self.runs_path),
            "slots": {"work": 100},
            "visibility_timeout_s": 60,
            "drain_timeout_s": 30,
            **config,
        }
        self.app: Celery = create_app(self.config)
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_worker(self) -> subprocess.Popen[bytes]:
        config_path = self.directory / "config.json"
        config_path.write_text(json.dumps(self.config), encoding="utf-8")
        name = f"w{len(self.workers)}"
        log_path = self.directory / f"{name}.log"
        with log_path.open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", __name__, str(config_path), "-n", f"{name}@test", "-l", "INFO"],
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        self.workers.append(worker)
        wait_until(lambda: b" ready." in log_path.read_bytes() or worker.poll() is not None, "the worker starts")
        assert worker.poll() is None, log_path.read_text()
        return worker

    def publish(self, keys: list[str], seconds: float = 0, queue: str = "work") -> None:
        with self.app.producer_pool.acquire(block=True) as producer, producer.batch(500):
            for key in keys:
                self.app.send_task("note", (key, seconds), queue=queue, producer=producer)

    def set_slots(self, queue: str, slots: int, *, by: str) -> None:
        self.app.send_task("set_slots", (queue, slots), queue=by)

    @property
    def runs(self) -> Counter[str]:
        """How often each task began, by key."""
        return Counter(self.runs_path.read_text(encoding="utf-8").split())

    def wait_for_runs(self, count: int) -> None:
        wait_until(lambda: len(self.runs) >= count, f"{count} tasks run")
        assert len(self.runs) == count

    def wait_until_done(self, queue: str = "work") -> None:
        wait_until(lambda: self.server.is_empty_of(queue), "all is done")

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(10)
        self.app.close()


if __name__ == "__main__":
    application = create_app(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    application.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", *sys.argv[2:]])
