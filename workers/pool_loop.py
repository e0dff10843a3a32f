"""The asyncio side of the task pool: one thread, its loop and the coroutines on it. Nothing of Celery runs here."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

logger = logging.getLogger(__name__)

# How long cancelled coroutines, and then the context, may take to end before the process goes on without them.
_CANCEL_LIMIT_S = 5.0
_CLOSE_LIMIT_S = 15.0


class GiveBack(BaseException):
    """Raised in a coroutine whose message is to go back to its queue: neither acked nor counted in its chord.

    No `Exception`, for the reason that `asyncio.CancelledError` is none: nobody takes it for a failure of the task.
    """


class Context(Protocol):
    """What the coroutines share: entered on the loop before the first one, left after the last one."""

    async def __aenter__(self) -> object:
        """Open it; if this raises, the worker does not start."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object:
        """Close it."""

    def drain(self) -> None:
        """Learn, on the loop, that the worker ends: coroutines that only wait should now raise `GiveBack`."""


@dataclass(slots=True, eq=False)
class Job:
    """One message that the pool runs. Written on the loop thread (or a `def` task's thread) until it is `over`."""

    number: int
    request: Any  # celery.worker.request.Request
    soft_limit_s: float | None = None
    hard_limit_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    stop: Callable[[], object] = lambda: None
    over: bool = False
    value: Any = None
    error: BaseException | None = None


_job: ContextVar[Job | None] = ContextVar("batchord_job", default=None)


def current_request() -> Any:
    """Return the `celery.worker.request.Request` of the running coroutine: `id`, `delivery_info`, ….

    Raises:
        LookupError: outside of the coroutines of a pool.
    """
    job = _job.get()
    if job is None:
        raise LookupError("No task of the pool runs here; only its coroutines have a request.")
    return job.request


class LoopThread:
    """Runs the coroutines of jobs inside a context.

    `finished` is called on the loop thread with each job that ended by itself or hit its hard limit.
    """

    def __init__(self, context: Context | None, finished: Callable[[Job], None]) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._context = context
        self._finished = finished
        self._inbox: deque[Job] = deque()
        self._notified = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closing: asyncio.Event
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="batchord-loop", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until the context is open.

        Raises:
            BaseException: whatever the context raised on opening.
        """
        self._thread.start()
        self._opened.result()

    def submit(self, job: Job) -> None:
        """Start the job's coroutine soon. A burst of jobs wakes the loop once."""
        job.stop = lambda: self._call(lambda: self._cancel(job))
        self._inbox.append(job)
        if not self._notified:
            self._notified = True
            self.loop.call_soon_threadsafe(self._start_jobs)

    def begin_drain(self) -> None:
        """Tell the context, and by it the coroutines."""
        if self._context is not None:
            self._call(self._context.drain)

    def close(self) -> None:
        """Cancel what still runs and close the context. Safe to repeat; bounded in time."""
        self._call(self._closing.set)
        self._thread.join(_CLOSE_LIMIT_S)
        if self._thread.is_alive():
            logger.error("The asyncio loop did not close within %s s; leaving it behind.", _CLOSE_LIMIT_S)

    def _call(self, function: Callable[[], object]) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._opened.done():
                logger.exception("The worker's async context failed on closing.")
            else:
                self._opened.set_exception(error)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        async with self._context or nullcontext():
            self._opened.set_result(None)
            await self._closing.wait()
            await self._cancel_all()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            if not task.cancelling():  # a second cancellation would break into the cleaning up after the first
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_LIMIT_S)

    def _start_jobs(self) -> None:
        self._notified = False  # before the inbox is read: a job that comes now must notify again
        while self._inbox:
            self._start(self._inbox.popleft())

    def _start(self, job: Job) -> None:
        task = self.loop.create_task(self._execute(job))
        self._tasks[job.number] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.number))
        if job.hard_limit_s:
            timer = self.loop.call_later(job.hard_limit_s, self._exceed, job, task)
            task.add_done_callback(lambda _: timer.cancel())

    def _cancel(self, job: Job) -> None:
        if task := self._tasks.get(job.number):
            task.cancel()

    async def _execute(self, job: Job) -> None:
        _job.set(job)
        value, error = None, None
        try:
            async with asyncio.timeout(job.soft_limit_s) as limit:
                value = await job.request.task.run(*job.request.args, **job.request.kwargs)
        except TimeoutError as raised:
            error = SoftTimeLimitExceeded(job.soft_limit_s) if limit.expired() else raised
        except BaseException as raised:  # noqa: BLE001  (the outcome of the task, whatever it is)
            error = raised
        self._conclude(job, value, error)

    def _exceed(self, job: Job, task: asyncio.Task[None]) -> None:
        """Count the job as over now: its coroutine may ignore the cancellation."""
        self._conclude(job, None, TimeLimitExceeded(job.hard_limit_s))
        task.cancel()

    def _conclude(self, job: Job, value: object, error: BaseException | None) -> None:
        if not job.over:
            job.value, job.error, job.over = value, error, True
            self._finished(job)
