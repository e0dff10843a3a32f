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
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

try:
    from uvloop import new_event_loop as _new_loop
except ImportError:  # a platform without it
    _new_loop = asyncio.new_event_loop  # type: ignore[assignment]  # the same, by its stated type

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
    task: asyncio.Task[None] | None = None
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

    On the loop thread, `finished` is called with each job that ended by itself or hit its hard limit, and `announce`
    after the last one of a round of the loop.
    """

    def __init__(self, context: Context | None, finished: Callable[[Job], None], announce: Callable[[], None]) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._context = context
        self._finished = finished
        self._announce = announce
        self._announcing = False
        self._inbox: deque[Job] = deque()
        self._notified = False
        self._tasks: set[asyncio.Task[None]] = set()
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
        job.stop = partial(self._stop, job)
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
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve())
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
        tasks = list(self._tasks)
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
        job.task = task = self.loop.create_task(self._execute(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if job.hard_limit_s:
            timer = self.loop.call_later(job.hard_limit_s, self._exceed, job, task)
            task.add_done_callback(lambda _: timer.cancel())

    def _stop(self, job: Job) -> None:
        self._call(lambda: job.task and job.task.cancel())

    async def _execute(self, job: Job) -> None:
        _job.set(job)
        value, error = None, None
        try:
            value = await (_run(job) if job.soft_limit_s is None else _run_limited(job, job.soft_limit_s))
        except BaseException as raised:  # noqa: BLE001  (the outcome of the task, whatever it is)
            error = raised
        self._conclude(job, value, error)

    def _exceed(self, job: Job, task: asyncio.Task[None]) -> None:
        """Count the job as over now: its coroutine may ignore the cancellation."""
        self._conclude(job, None, TimeLimitExceeded(job.hard_limit_s))
        task.cancel()

    def _conclude(self, job: Job, value: object, error: BaseException | None) -> None:
        if job.over:
            return
        job.value, job.error, job.over = value, error, True
        self._finished(job)
        if not self._announcing:
            self._announcing = True
            self.loop.call_soon(self._announce_all)  # with what ends in the same round

    def _announce_all(self) -> None:
        self._announcing = False
        self._announce()


def _run(job: Job) -> Awaitable[object]:
    run: Awaitable[object] = job.request.task.run(*job.request.args, **job.request.kwargs)
    return run


async def _run_limited(job: Job, limit_s: float) -> object:
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await _run(job)
    except TimeoutError:
        if limit.expired():
            raise SoftTimeLimitExceeded(limit_s) from None
        raise
