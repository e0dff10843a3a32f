"""The Celery app of the fleet: which settings matter, and why. Nothing happens on import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu import Exchange, Queue

from batchord.broker import CONTROL_QUEUE, MESSAGE_SETTINGS, celery_url, provider_queue
from workers.context import Context
from workers.permits import slots
from workers.reload import KnownConsumer
from workers.tasks import register_tasks
from workers.transport import install
from workers.transport_url import broker_settings

if TYPE_CHECKING:
    from batchord.settings import Settings

_CONTROL_SLOTS = 32


def create_celery(settings: Settings) -> Celery:
    """Make the app of one worker process.

    Raises:
        ConfigError: there is no provider, or the Redis URL or a provider is not right.
    """
    install()
    app = Celery("batchord", set_as_current=False)
    context = Context(app, settings)
    queues = {provider_queue(name): slots(p.most_in_flight) for name, p in context.routes.providers.items()}
    queues[CONTROL_QUEUE] = _CONTROL_SLOTS
    app.conf.update(MESSAGE_SETTINGS)
    app.conf.update(_worker_settings(settings, queues))
    app.conf.update(broker_settings(settings.redis_url))
    app.batchord_context = context
    app.steps["consumer"].add(KnownConsumer)
    register_tasks(app, context)
    return app


def _worker_settings(settings: Settings, queues: dict[str, int]) -> dict[str, Any]:
    return {
        "result_backend": f"workers.chords.Backend+{celery_url(settings.redis_url).removeprefix('redis+')}",
        "redis_socket_timeout": 20,
        "worker_pool": "workers.pool:TaskPool",
        "worker_concurrency": sum(queues.values()),
        "worker_prefetch_multiplier": 1,
        "task_queues": [Queue(name, Exchange(name), routing_key=name) for name in queues],
        "task_acks_late": True,
        "task_track_started": False,
        "batchord_drain_timeout_s": settings.drain_timeout_s,
        "broker_transport_options": {
            **MESSAGE_SETTINGS["broker_transport_options"],
            "visibility_timeout": settings.visibility_timeout_s,
            "slots": queues,
        },
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_disable_rate_limits": True,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_proc_alive_timeout": 30,
    }
