"""The Celery pool of the fleet: `async def` tasks as coroutines of one loop, hundreds at once. Not for CPU-bound tasks.

Two threads. The coroutines run on the loop thread. Everything of Celery runs on the hub (main) thread: a message comes
in there, and when its coroutine has ended, Celery's own tracer replays the outcome there, so that signals, callbacks,
results, chord parts, events and the log are the stock ones; `workers.strategy` spares a plain line that replay.
`def` tasks run in a few threads, tracer included.

Select it by `app.conf.worker_pool = "workers.pool:TaskPool"`. All that is fetched runs at once, so the prefetch count
(`worker_concurrency`, with `worker_prefetch_multiplier` 1) is what bounds the tasks in flight.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded
from celery import Task
from celery.app.trace import trace_task
from celery.concurrency.base import BasePool
from celery.worker.state import task_ready
from kombu.asynchronous import get_event_loop

from batchord.errors import ConfigError
from workers.chords import Backend
from workers.pool_loop import GiveBack, Job, LoopThread, current_request
from workers.pool_wake import Wake
from workers.strategy import PlainRequest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

__all__ = ["AsyncTask", "GiveBack", "TaskPool", "current_request"]

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
_DRAIN_TURN_S = 0.05
_DRAIN_TIMEOUT_S = 600.0  # unless app.conf.batchord_drain_timeout_s says otherwise


class AsyncTask(Task):
    """The base class of every `async def` task: `@app.task(base=AsyncTask)`."""

    abstract = True
    Strategy = "workers.strategy:strategy"
    finished_job: Job | None = None  # set on the hub thread only, for the one call by the tracer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay for the tracer what the coroutine did; called by anybody else, return the coroutine."""
        job, self.finished_job = self.finished_job, None
        if job is None:
            return self.run(*args, **kwargs)
        if job.error is None:
            return job.value
        if isinstance(job.error, Exception):
            raise job.error
        # The tracer lets nothing else through to the chord, and would end the worker.
        raise RuntimeError(f"The task's coroutine ended by {job.error!r}") from job.error


class TaskPool(BasePool):
    """Celery's pool interface; each method runs on the hub thread unless it says otherwise.

    What the coroutines share is `app.batchord_context`, if there is one: see `workers.pool_loop.Context`. A coroutine
    ends as any Celery task does, by an exception or `Ignore` (acked, no chord part), or by `GiveBack`.

    A soft time limit cancels the coroutine, which has then failed by `SoftTimeLimitExceeded`; a hard one does not wait
    for it to end. Neither can, nor can `terminate`, interrupt a `def` task.
    """

    body_can_be_buffer = True
    signal_safe = False
    limit: int
    task_join_will_block = False

    def on_start(self) -> None:
        """Open the async context and take the chord parts of this thread's backend in charge."""
        _check_bases(self.app.tasks.values())
        if get_event_loop() is None:
            raise ConfigError("The pool needs a broker that Celery's event loop can watch: Redis, or amqp://.")
        self._hub: Any = None
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count(1)
        self._done: deque[Job] = deque()
        self._ready: list[tuple[Job, Callable[[], None]]] = []
        self._retry_at = 0.0
        self._wake = Wake()
        if threading.current_thread() is threading.main_thread():
            self._wake.set_at_signals()
        self._threads = ThreadPoolExecutor(thread_name_prefix="batchord-def")
        self._loop_thread = LoopThread(
            getattr(self.app, "batchord_context", None), finished=self._done.append, announce=self._wake.set
        )
        self._loop_thread.start()
        if isinstance(self.app.backend, Backend):
            self.app.backend.defer_parts(self._wake.set)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the coroutines; it runs on another thread."""
        return self._loop_thread.loop

    def register_with_event_loop(self, hub: Any) -> None:
        """Listen for ended jobs; called again after each reconnect, which forgets the readers."""
        self._hub = hub
        # A reader, not hub.call_soon: acks are queued with call_soon, and those of a reader run without another poll.
        hub.add_reader(self._wake.fd, self.finish)

    def on_apply(  # noqa: PLR0913  (Celery's signature)
        self,
        target: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        callback: Any,
        accept_callback: Callable[[int, float], None],
        timeout: float | None = None,
        soft_timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Start a task. Its job's number is what Celery knows as the worker's pid."""
        job = self._new_job(callback.__self__, soft_timeout, timeout)
        accept_callback(job.number, job.started)
        if isinstance(job.request.task, AsyncTask):
            self._loop_thread.submit(job)
        else:
            self._start_in_thread(job, partial(target, *args, **kwargs))

    def begin(self, request: PlainRequest) -> int:
        """Start the coroutine of a plain message; the number of its job."""
        job = self._new_job(request)
        self._loop_thread.submit(job)
        return job.number

    def finish(self) -> None:
        """Record every job that ended: trace, count the chord parts, and only then ack."""
        self._wake.clear()
        while self._done:
            job = self._done.popleft()
            if job.number in self._jobs:  # else it was terminated, and so recorded, before it ended
                self._ready.append((job, self._record(job)))
        if self._flush_parts():
            ready, self._ready = self._ready, []
            for job, conclude in ready:
                self._jobs.pop(job.number, None)
                conclude()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:  # noqa: ARG002  (Celery's signature)
        """Cancel the coroutine of a job; one that is over is recorded as it ended."""
        job = self._jobs.get(pid)
        if job is not None and not job.over:
            del self._jobs[pid]
            job.stop()

    def grow(self, n: int = 1) -> None:
        """Raise the limit; Celery raises the prefetch count with it."""
        self.limit += n

    def shrink(self, n: int = 1) -> None:
        """Lower the limit; Celery lowers the prefetch count with it."""
        self.limit = max(1, self.limit - n)

    def on_stop(self) -> None:
        """Drain: finish what is in flight, up to the drain limit; the rest goes back to its queues."""
        self._loop_thread.begin_drain()
        limit_s = self.app.conf.get("batchord_drain_timeout_s", _DRAIN_TIMEOUT_S)
        deadline = time.monotonic() + limit_s
        while self._jobs and time.monotonic() < deadline:
            self._wake.wait(_DRAIN_TURN_S)
            self.finish()
            self._turn_hub()
        self.on_terminate()

    def on_terminate(self) -> None:
        """Stop at once: record what is over, cancel the rest. Comes again after on_stop, and from a signal handler."""
        self.finish()
        self._jobs.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._loop_thread.close()

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "processes": [os.getpid()], "in-flight": len(self._jobs)}

    def _new_job(self, request: Any, soft_limit_s: float | None = None, hard_limit_s: float | None = None) -> Job:
        soft_limit_s = soft_limit_s or self.options.get("soft_timeout")
        hard_limit_s = hard_limit_s or self.options.get("timeout")
        job = Job(next(self._numbers), request, soft_limit_s, hard_limit_s)
        self._jobs[job.number] = job
        return job

    def _start_in_thread(self, job: Job, traced: Callable[[], Any]) -> None:
        def end(future: Future[Any]) -> None:
            if not future.cancelled():
                job.error = future.exception()
                job.value = None if job.error else future.result()
                job.over = True
                self._done.append(job)
                self._wake.set()

        future = self._threads.submit(traced)
        job.stop = future.cancel
        future.add_done_callback(end)

    def _record(self, job: Job) -> Callable[[], None]:
        """Record a job's outcome as Celery does; return what is left for when the chord parts are counted."""
        request = job.request
        if job.error is None and job.value is None and isinstance(request, PlainRequest):
            if request.part_of is not None:
                self.app.backend.add_part(request.part_of, request.id)
            return request.succeed
        match job.error:
            case GiveBack():
                return partial(_give_back, request)
            case TimeLimitExceeded():
                return partial(request.on_timeout, soft=False, timeout=job.hard_limit_s)
        if not isinstance(request.task, AsyncTask):
            return partial(request.on_success, job.value) if job.error is None else _failing(request, job.error)
        try:
            return partial(request.on_success, self._replay(job))
        except Exception as error:  # noqa: BLE001  (an unreadable message, or a hook's Reject: on_failure knows)
            return _failing(request, error)

    def _replay(self, job: Job) -> tuple[int, Any, float]:
        """Return what the tracer of a `def` task does: (whether it failed, the result or the failure, seconds)."""
        request = job.request
        _, _, embed = request.message.payload
        request.request_dict.update(embed or {}, is_eager=False)
        request.task.finished_job = job
        retval, failed, _, text = trace_task(
            request.task, request.id, request.args, request.kwargs, request.request_dict, app=self.app
        )
        return (1, retval, 0.0) if failed else (0, text, time.monotonic() - job.started)

    def _flush_parts(self) -> bool:
        """Count the chord parts; on any error keep them, and what waits for them, and say when to try again."""
        if time.monotonic() < self._retry_at:
            return False
        try:
            if isinstance(self.app.backend, Backend):
                self.app.backend.flush_parts()
        except Exception as error:  # noqa: BLE001  (whatever it is: unacked messages must not be forgotten)
            logger.warning("Chord parts not counted (%r); trying again in %s s.", error, _RETRY_S)
            self._retry_at = time.monotonic() + _RETRY_S
            if self._hub is not None:
                self._hub.call_at(self._retry_at, self._wake.set)
            return False
        return True

    def _turn_hub(self) -> None:
        """Do the hub's work while its loop is down: its timers, and the acks that were queued with call_soon."""
        if self._hub is None:
            return
        self._hub.fire_timers()
        for callback in self._hub._pop_ready():  # noqa: SLF001  (no public call runs them before the hub closes)
            try:
                callback()
            except Exception:
                logger.exception("An ack failed while the worker drains; its message will be delivered again.")


def _check_bases(tasks: Any) -> None:
    """Refuse a task whose coroutine nobody would await, or whose plain function would be awaited."""
    for task in tasks:
        if isinstance(task, AsyncTask) != inspect.iscoroutinefunction(task.run):
            raise ConfigError(f"Task {task.name}: an `async def` task, and no other, has base=AsyncTask.")


def _give_back(request: Any) -> None:
    task_ready(request)
    request.reject(requeue=True)


def _failing(request: Any, error: BaseException) -> Callable[[], None]:
    return partial(request.on_failure, ExceptionInfo((type(error), error, error.__traceback__)))
