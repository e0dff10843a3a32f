"""The tasks of the small fleet in `celery_worker`, and what they share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import redis
import redis.asyncio
from celery.exceptions import Ignore

from workers.pool import AsyncTask, GiveBack, current_request
from workers.reload import consume
from workers.transport_inflight import IN_FLIGHT

if TYPE_CHECKING:
    from celery import Celery


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


def add_tasks(app: Celery, context: Context) -> None:
    """Register all but those that exit."""
    _add_short_tasks(app)
    _add_tasks_that_wait(app, context)
    _add_steps(app, context)
    _add_task_that_consumes(app)


def _add_short_tasks(app: Celery) -> None:
    task = partial(app.task, shared=False)  # else Celery copies the tasks of one app to the next

    @task(name="greet", base=AsyncTask)
    async def greet(name: str) -> str:
        return f"hello {name} on {current_request().delivery_info['routing_key']}"

    @task(name="count")
    def count(key: str) -> str:
        with redis.Redis.from_url(f"unix://{socket_path_of(app)}") as client:
            return str(client.incr(key))

    @task(name="run_shell", base=AsyncTask)
    async def run_shell(text: str) -> list[str | int]:
        shell = await asyncio.create_subprocess_exec("sh", "-c", text, stdout=subprocess.PIPE)
        output, _ = await shell.communicate()
        return [output.decode(), await asyncio.to_thread(lambda: shell.returncode or 0)]

    @task(name="fail", base=AsyncTask)
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("as asked for")

    @task(name="cancel_itself", base=AsyncTask)
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    @task(name="nothing", base=AsyncTask)
    async def nothing() -> None:
        pass

    @task(name="gather", base=AsyncTask)
    async def gather(parts: list[str]) -> list[str]:
        return sorted(parts)

    if os.environ.get("WRONG_BASE"):

        @task(name="unawaited")
        async def unawaited() -> None:
            pass


def _add_tasks_that_wait(app: Celery, context: Context) -> None:
    task = partial(app.task, shared=False)

    @task(name="join_crowd", base=AsyncTask)
    async def join_crowd(size: int) -> None:
        """End only when `size` of these are inside at once."""
        context.inside += 1
        if context.inside == size:
            context.crowd.set()
        await context.crowd.wait()

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


def _add_task_that_consumes(app: Celery) -> None:
    @app.task(name="consume_from", base=AsyncTask, shared=False)
    async def consume_from(queue: str, slots: int) -> None:
        IN_FLIGHT.set_slots(queue, slots)
        consume(app, queue)


def _add_steps(app: Celery, context: Context) -> None:
    """Register what stands where a line's step and its chord's callback are."""
    task = partial(app.task, shared=False)

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


def add_tasks_that_exit(app: Celery) -> None:
    """Register those that try to end their worker."""
    task = partial(app.task, shared=False)

    @task(name="leave")
    def leave() -> None:
        sys.exit("as asked for")

    @task(name="leave_async", base=AsyncTask)
    async def leave_async() -> None:
        sys.exit("as asked for")


def socket_path_of(app: Celery) -> str:
    path: str = app.batchord_context._socket_path
    return path
