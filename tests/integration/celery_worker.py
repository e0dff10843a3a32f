"""A small fleet for the tests of the pool, the chords and their like: starting workers in processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from celery import Celery, signals
from kombu import Exchange, Queue

from batchord.embedded import EmbeddedValkey
from tests.integration.celery_tasks import Context, add_tasks, add_tasks_that_exit
from workers.chords import publish
from workers.reload import KnownConsumer
from workers.strategy import TASK_LOGGERS
from workers.transport import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[2]
QUEUE = "provider.test"
BOUND_S = 60.0


def create_app(socket_path: str, scheme: str = "redis") -> Celery:
    """Give the app of the workers and of the tests; `scheme` is that of the broker's transport."""
    install()
    broker_url = os.environ.get("BROKER_URL", f"{scheme}+socket://{socket_path}?virtual_host=0")
    app = Celery("test", broker=broker_url, set_as_current=False)
    app.conf.update(
        result_backend=f"workers.chords.Backend+socket://{socket_path}?virtual_host=0",
        worker_pool="workers.pool:TaskPool",
        worker_concurrency=2500,
        worker_prefetch_multiplier=1,
        worker_send_task_events=bool(os.environ.get("TASK_EVENTS")),
        task_acks_late=True,
        worker_disable_rate_limits=True,
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in (QUEUE, "control")],
        task_default_queue=QUEUE,
        broker_connection_retry_on_startup=True,
        broker_channel_error_retry=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options={
            "body_encoding": "utf-8",
            "visibility_timeout": float(os.environ.get("VISIBILITY_S", "3600")),
            "unacked_restore_interval": 1,
            "slots": {QUEUE: 2500, "control": 100},
        },
        batchord_drain_timeout_s=float(os.environ.get("DRAIN_S", "60")),
    )
    if password := os.environ.get("RESULTS_PASSWORD"):
        app.conf.update(redis_username="results", redis_password=password)
    app.batchord_context = Context(socket_path)
    app.steps["consumer"].add(KnownConsumer)
    add_tasks(app, app.batchord_context)
    add_tasks_that_exit(app)
    return app


class Worker:
    """A Celery worker in a process of its own."""

    def __init__(self, socket_path: Path, log_path: Path, scheme: str, **env: str) -> None:
        self.log_path = log_path
        argv = [sys.executable, "-m", "tests.integration.celery_worker", str(socket_path), scheme]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", **env}
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def ready(self) -> Self:
        wait_for(lambda: " ready." in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return self

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(BOUND_S)


class Site:
    """A server, an app that publishes to it, and the workers that a test starts there."""

    def __init__(self, valkey: EmbeddedValkey, folder: Path, scheme: str) -> None:
        self.valkey, self.scheme = valkey, scheme
        self.app = create_app(str(valkey.socket_path), scheme)
        self.redis: redis.Redis = redis.Redis.from_url(valkey.url, decode_responses=True)
        self._folder = folder
        self._workers: list[Worker] = []

    def start_worker(self, **env: str) -> Worker:
        log_path = self._folder / f"worker-{len(self._workers)}.log"
        worker = Worker(self.valkey.socket_path, log_path, self.scheme, **env)
        self._workers.append(worker)
        return worker

    def worker(self, **env: str) -> Worker:
        return self.start_worker(**env).ready()

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(name, args, queue=QUEUE, **options)

    def is_idle(self) -> bool:
        """Whether every message is acked."""
        return not any([self.redis.llen(QUEUE), self.redis.llen("control"), self.redis.hlen("unacked")])

    def became_idle(self) -> None:
        wait_for(self.is_idle)

    def close(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.kill()
        self.app.backend.client.close()
        self.app.close()
        self.redis.close()


def publish_lines(site: Site, gid: str, indices: Iterable[int], how: str = "ok", queue: str = QUEUE) -> None:
    """Publish the lines of a shard, and its seal, as a fleet does."""
    publish(site.app, gid, dict.fromkeys(indices, (how,)), queue, (gid,))


@contextmanager
def new_site(folder: Path, scheme: str) -> Iterator[Site]:
    """Give a site with an empty server of its own."""
    with EmbeddedValkey(folder) as valkey:
        site = Site(valkey, folder, scheme)
        try:
            yield site
        finally:
            site.close()


def wait_for(condition: Callable[[], Any], bound_s: float = BOUND_S) -> Any:
    """Poll until the condition holds, and give what it gave."""
    end = time.monotonic() + bound_s
    while not (value := condition()):
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.01)
    return value


def listen(socket_path: str) -> None:
    """Count, in Redis, what Celery tells of its tasks."""
    client = redis.Redis(unix_socket_path=socket_path)
    for name in ("task_received", "task_prerun", "task_postrun", "task_success"):
        getattr(signals, name).connect(lambda *_, name=name, **__: client.hincrby("heard", name, 1), weak=False)


def main(socket_path: str, scheme: str) -> int:
    app = create_app(socket_path, scheme)
    for name in TASK_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    if os.environ.get("LISTENING"):
        listen(socket_path)
    worker = app.Worker(loglevel="INFO", without_gossip=True, without_mingle=True, without_heartbeat=True)
    worker.start()
    return worker.exitcode or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
