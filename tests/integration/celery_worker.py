"""A small fleet for the tests of the pool, the chords and their like: the tasks, and starting workers in processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
import redis.asyncio
from celery import Celery
from celery.exceptions import Ignore
from kombu import Exchange, Queue

from batchord.embedded import EmbeddedValkey
from workers.pool import AsyncTask, GiveBack, current_request
from workers.transport import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
QUEUE = "provider.test"
BOUND_S = 60.0


class Context:
    """Opens an asyncio client for the tasks, and leaves a trace of its own life in Redis."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    async def __aenter__(self) -> Self:
        if os.environ.get("BROKEN_CONTEXT"):
            raise OSError("the context would not open")
        pool = redis.asyncio.BlockingConnectionPool.from_url(f"unix://{self._socket_path}", max_connections=100)
        self.redis = redis.asyncio.Redis.from_pool(pool)
        self.draining = asyncio.Event()
        self.told: asyncio.Future[Any] | None = None
        self.crowd = asyncio.Event()
        self.inside = 0
        await self.redis.rpush("context", "opened")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.told is not None:
            await self.told
        await self.redis.rpush("context", "closed")
        await self.redis.aclose()

    async def hold(self, name: str) -> None:
        """Say that it began, and end when it may; say so too if it is cancelled."""
        # A blocking client, for redis-py's asyncio one may swallow a cancellation in the middle of a command.
        with redis.Redis(unix_socket_path=self._socket_path) as client:
            client.rpush("began", name)
            try:
                while not client.exists("release"):  # noqa: ASYNC110  (what is waited for is in Redis)
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                client.rpush("cancelled", name)
                raise
        await self.redis.rpush("ended", name)

    def drain(self) -> None:
        self.draining.set()
        self.told = asyncio.ensure_future(self.redis.rpush("context", "draining"))


def create_app(socket_path: str, scheme: str = "redis") -> Celery:
    """Give the app of the workers and of the tests; `scheme` is that of the broker's transport."""
    install()
    app = Celery("test", broker=f"{scheme}+socket://{socket_path}?virtual_host=0", set_as_current=False)
    app.conf.update(
        result_backend=f"workers.chords.Backend+socket://{socket_path}?virtual_host=0",
        worker_pool="workers.pool:TaskPool",
        worker_concurrency=2500,
        worker_prefetch_multiplier=1,
        worker_send_task_events=bool(os.environ.get("TASK_EVENTS")),
        task_acks_late=True,
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
    _add_tasks(app, app.batchord_context)
    return app


def _add_tasks(app: Celery, context: Context) -> None:  # noqa: C901  (one small task after the other)
    task = partial(app.task, shared=False)  # else Celery copies the tasks of one app to the next

    @task(name="join_crowd", base=AsyncTask)
    async def join_crowd(size: int) -> None:
        """End only when `size` of these are inside at once."""
        context.inside += 1
        if context.inside == size:
            context.crowd.set()
        await context.crowd.wait()

    @task(name="greet", base=AsyncTask)
    async def greet(name: str) -> str:
        return f"hello {name} on {current_request().delivery_info['routing_key']}"

    @task(name="count")
    def count(key: str) -> str:
        with redis.Redis.from_url(f"unix://{socket_path_of(app)}") as client:
            return str(client.incr(key))

    @task(name="fail", base=AsyncTask)
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("as asked for")

    @task(name="cancel_itself", base=AsyncTask)
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    @task(name="hold", base=AsyncTask)
    async def hold(name: str) -> None:
        await context.hold(name)

    @task(name="ignore_cancellation", base=AsyncTask)
    async def ignore_cancellation() -> None:
        while not context.draining.is_set():
            try:
                await context.draining.wait()
            except asyncio.CancelledError:
                await context.redis.rpush("cancelled", "in vain")

    @task(name="wait_for_permit", base=AsyncTask)
    async def wait_for_permit() -> None:
        await context.redis.rpush("began", "waiting")
        await context.draining.wait()
        raise GiveBack

    @task(name="batchord.execute", base=AsyncTask)
    async def execute(how: str) -> None:
        await context.redis.hincrby("ran", current_request().id, 1)
        if how == "fail":
            raise ValueError("as asked for")
        if how == "ignore":
            raise Ignore
        if how == "wait":
            await context.draining.wait()
            raise GiveBack
        if how == "hold":
            await context.hold(current_request().id)

    @task(name="batchord.seal", base=AsyncTask)
    async def seal(gid: str) -> None:
        await context.redis.incr(f"sealed:{gid}")

    @task(name="leave")
    def leave() -> None:
        sys.exit("as asked for")

    @task(name="leave_async", base=AsyncTask)
    async def leave_async() -> None:
        sys.exit("as asked for")

    @task(name="nothing", base=AsyncTask)
    async def nothing() -> None:
        pass

    if os.environ.get("WRONG_BASE"):

        @task(name="unawaited")
        async def unawaited() -> None:
            pass

    @task(name="gather", base=AsyncTask)
    async def gather(parts: list[str]) -> list[str]:
        return sorted(parts)


def socket_path_of(app: Celery) -> str:
    path: str = app.batchord_context._socket_path
    return path


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


def main(socket_path: str, scheme: str) -> int:
    app = create_app(socket_path, scheme)
    worker = app.Worker(loglevel="INFO", without_gossip=True, without_mingle=True, without_heartbeat=True)
    worker.start()
    return worker.exitcode or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
