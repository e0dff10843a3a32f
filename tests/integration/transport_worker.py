"""A Celery app with the smallest asyncio pool, to drive `workers.transport`: run as `transport_worker.py CONFIG.json`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery import Celery, Task
from celery.concurrency.base import BasePool
from kombu import Exchange, Queue

from workers.transport import install
from workers.transport_inflight import IN_FLIGHT
from workers.transport_url import broker_settings


class Job(SimpleNamespace):
    """One task in the pool; Celery keeps a weak reference to it."""

    def terminate(self, signal: Any) -> None:
        raise NotImplementedError


class AsyncTask(Task):
    abstract, outcome = True, (True, None)

    def __call__(self, *_: Any, **__: Any) -> Any:
        ok, value = self.outcome
        if not ok:
            raise value
        return value


class TaskPool(BasePool):
    """Coroutines on a thread's loop; Celery's tracer replays their outcomes on the hub's thread."""

    body_can_be_buffer, signal_safe, task_join_will_block = True, False, False

    def on_start(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.done: deque[Job] = deque()
        self.count = 0
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def register_with_event_loop(self, hub: Any) -> None:
        self.hub = hub
        hub.add_reader(self.wake_fd, self.finish)

    def on_apply(self, *_: Any, callback: Any = None, accept_callback: Any = None, **__: Any) -> Job:
        self.count += 1
        job = Job(id=self.count, request=callback.__self__, callback=callback, started=time.monotonic(), outcome=None)
        self.jobs[job.id] = job
        accept_callback(job.id, job.started)
        asyncio.run_coroutine_threadsafe(self.run(job), self.loop)
        return job

    async def run(self, job: Job) -> None:
        args, kwargs, _ = job.request._payload
        try:
            job.outcome = (True, await job.request.task.run(*args, **kwargs))
        except Exception as exc:
            job.outcome = (False, exc)
        self.done.append(job)
        os.eventfd_write(self.wake_fd, 1)

    def finish(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        while self.done:
            job = self.done.popleft()
            del self.jobs[job.id]
            (args, kwargs, embed), request, task = job.request._payload, job.request.request_dict, job.request.task
            request.update({"args": args, "kwargs": kwargs, "is_eager": False}, **embed or {})
            task.outcome = job.outcome
            result, info, _, text = task.__trace__(job.request.id, args, kwargs, request)
            job.callback((1, result, 0.0) if info else (0, text, 0.0))

    def on_stop(self) -> None:
        end = time.monotonic() + self.app.conf.drain_timeout_s
        while self.jobs and time.monotonic() < end:
            time.sleep(0.01)
            self.finish()
            self.hub.fire_timers()

    def on_terminate(self) -> None:
        self.finish()

    @property
    def num_processes(self) -> int:
        return int(self.limit)


def create_app(config: dict[str, Any]) -> Celery:
    """`config`: redis_url, slots, runs (a file: a line for each task begun), visibility_timeout_s, drain_timeout_s."""
    if not config.get("stock"):
        install()
    app = Celery("transport_worker", set_as_current=False, task_cls=AsyncTask)
    app.conf.update(
        broker_settings(config["redis_url"]) if not config.get("stock") else {"broker_url": config["redis_url"]},
        worker_pool="tests.integration.transport_worker:TaskPool",
        worker_concurrency=1000,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_hijack_root_logger=False,
        task_acks_late=True,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": config.get("visibility_timeout_s", 60),
            "slots": config["slots"],
            "body_encoding": "utf-8",
        },
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in config["slots"]],
        task_create_missing_queues=False,
        drain_timeout_s=config.get("drain_timeout_s", 30),
    )
    runs = os.open(config["runs"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @app.task(name="note")
    async def note(key: str, seconds: float) -> None:
        os.write(runs, f"{key}\n".encode())
        await asyncio.sleep(seconds)

    @app.task(name="set_slots")
    async def set_slots(queue: str, slots: int) -> None:
        IN_FLIGHT.set_slots(queue, slots)

    return app


if __name__ == "__main__":
    application = create_app(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    application.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", os.environ.get("LL","INFO"), *sys.argv[2:]])
