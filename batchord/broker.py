"""The names of queues and tasks, and how a producer sends a step to the fleet. Not for the tasks themselves."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from batchord.errors import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

CONTROL_QUEUE: Final = "control"


class Step(StrEnum):
    """A step of a line's way through the fleet: the name of its Celery task."""

    PLAN = "batchord.plan"
    FEED = "batchord.feed"
    EXECUTE = "batchord.execute"
    SEAL = "batchord.seal"
    FINALIZE = "batchord.finalize"
    SWEEP = "batchord.sweep"


def provider_queue(provider: str) -> str:
    """Give the queue of a provider's lines."""
    return f"provider.{provider}"


def celery_url(redis_url: str) -> str:
    """Give the form of a Redis URL that Celery takes: redis-py's `unix://` is its `redis+socket://`.

    Certificates are verified unless the URL says otherwise, which Celery would not do by itself.
    """
    if redis_url.startswith("rediss://") and "ssl_cert_reqs=" not in redis_url:
        redis_url += ("&" if "?" in redis_url else "?") + "ssl_cert_reqs=required"
    return redis_url.replace("unix://", "redis+socket://", 1).replace("db=", "virtual_host=", 1)


def create_producer(redis_url: str) -> Celery:
    """Give a Celery app that can only send: what a program needs that hands batches to a running fleet."""
    from celery import Celery  # noqa: PLC0415 (slow to import: not before something is sent)

    app = Celery("batchord", broker=celery_url(redis_url), set_as_current=False)
    app.conf.update(MESSAGE_SETTINGS)
    return app


MESSAGE_SETTINGS: Final[dict[str, Any]] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "task_default_queue": CONTROL_QUEUE,
    "broker_transport_options": {"body_encoding": "utf-8", "socket_timeout": 20},
    "broker_connection_retry_on_startup": True,
}


def send(app: Celery, step: Step, *args: str | int) -> None:
    """Send one step to the control queue.

    Raises:
        StateUnavailableError: the broker does not answer for now; the sweep sends the step later.
    """
    with _translated():
        app.send_task(step.value, args, queue=CONTROL_QUEUE, exchange="", routing_key=CONTROL_QUEUE, ignore_result=True)


@contextmanager
def _translated() -> Iterator[None]:
    from kombu.exceptions import OperationalError  # noqa: PLC0415 (as above)

    try:
        yield
    except OperationalError as error:
        raise StateUnavailableError(f"The broker does not answer for now: {error}") from error
