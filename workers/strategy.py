"""Celery's strategy for `async def` tasks: a plain line goes the short way, all else Celery's own. Not the running.

A message is plain if our transport brought it, it has only what `workers.chords.publish` writes, and nobody listens: no
signal, no events, no log of each task, no hook. What Celery would then do is bookkeeping, and that is all done here.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from celery import signals
from celery.app.trace import task_has_custom
from celery.worker import state
from celery.worker.request import Request
from celery.worker.strategy import default

from workers.chords import Backend, is_ours
from workers.transport_inflight import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

TASK_LOGGERS: Final = ("celery.worker.strategy", "celery.app.trace")
"""Celery's loggers that say a sentence each of every task."""

_HEADERS: Final = frozenset(("lang", "task", "id", "group", "ignore_result"))
_HOOKS: Final = ("before_start", "on_success", "after_return")
_SIGNALS: Final = (signals.task_received, signals.task_prerun, signals.task_postrun, signals.task_success)


class _Embed(msgspec.Struct, forbid_unknown_fields=True):
    """What a plain body has behind its arguments."""

    chord: dict[str, Any] | None = None


_Body = tuple[list[Any], dict[str, Any], _Embed]
_read_body: Final = msgspec.json.Decoder(_Body).decode


class PlainRequest(Request):
    """A worker's request for a plain message: what only tells, or settles a task that fails, is made when asked for."""

    acknowledged: bool

    def __init__(self, message: Any, body: _Body, **complete: Any) -> None:
        self._message = message
        self._args, self._kwargs, embed = body
        # The id of a chord of ours.
        self.part_of: str | None = message.headers["group"] if embed.chord is not None else None
        self._complete: dict[str, Any] | None = complete
        self._task = complete["task"]
        self.id = message.headers["id"]
        self.name = message.headers["task"]

    def __getattr__(self, name: str) -> Any:
        """Become a whole request of Celery's, upon the first question for what is not there."""
        complete = self.__dict__.get("_complete")
        if complete is None:
            raise AttributeError(name)
        super().__init__(self._message, **complete)
        self._complete = None  # not earlier: a coroutine may ask on the other thread meanwhile
        return getattr(self, name)

    def execute_using_pool(self, pool: Any, **_: Any) -> None:
        """Start it; Celery calls this."""
        self.worker_pid = pool.begin(self)
        self.time_start = time.time()
        state.requests[self.id] = self
        state.active_requests.add(self)
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1

    def succeed(self) -> None:
        """Settle it as Celery does if all went well, but at once: this is the thread that acknowledges."""
        state.requests.pop(self.id, None)
        state.active_requests.discard(self)
        if not self.acknowledged:
            self.acknowledged = True
            IN_FLIGHT.ack(self._message.delivery_tag)


def strategy(task: Any, app: Any, consumer: Any) -> Callable[..., Any]:
    """Give what takes a task's messages from now on; Celery calls this for each task and connection."""
    stock: Callable[..., Any] = default(task, app, consumer)
    if not _may_be_plain(task, app, consumer):
        return stock
    rest = {"app": app, "task": task, "hostname": consumer.hostname, "connection_errors": consumer.connection_errors}

    def take(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        plain = None if callbacks or _is_listened_to(consumer.event_dispatcher) else _read_plain(message)
        if plain is None:
            return stock(message, body, ack, reject, callbacks)
        eventer = consumer.event_dispatcher
        return consumer.on_task_request(
            PlainRequest(message, plain, on_ack=ack, on_reject=reject, eventer=eventer, **rest)
        )

    return take


def _may_be_plain(task: Any, app: Any, consumer: Any) -> bool:
    """Whether what is set leaves the short way to a task."""
    return (
        task.acks_late
        and consumer.disable_rate_limits
        and isinstance(app.backend, Backend)
        and not (task.time_limit or task.soft_time_limit or app.conf.worker_deduplicate_successful_tasks)
        and not any(task_has_custom(task, hook) for hook in _HOOKS)
        and not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in TASK_LOGGERS)
    )


def _is_listened_to(eventer: Any) -> bool:
    """Whether anybody wants to hear of each task."""
    for signal in _SIGNALS:
        if signal.receivers:
            return True
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))


def _read_plain(message: Any) -> _Body | None:
    """Give the body of a plain message; None of any other."""
    headers = message.headers
    if not (
        message.delivery_tag in IN_FLIGHT
        and headers.keys() <= _HEADERS
        and headers.get("ignore_result") is True
        and message.content_type == "application/json"
        and headers["id"] not in state.revoked
        and b'"__type__"' not in message.body  # what Celery's JSON knows and ours does not
    ):
        return None
    try:
        body = _read_body(message.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return body if body[2].chord is None or is_ours(headers.get("group")) else None
