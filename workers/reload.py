"""A changed providers file, taken over by a worker that runs: new limits, new keys, new providers with their queues."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps
from kombu import Exchange, Queue

from batchord.broker import provider_queue
from batchord.reload import Watch, follow

if TYPE_CHECKING:
    from batchord.routing import Routes
    from workers.context import Context

_LOGGER = logging.getLogger(__name__)


class KnownConsumer(bootsteps.Step):
    """Makes Celery's consumer known to the app, so that it can be given more queues; it outlives its connections."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.app.batchord_consumer = consumer


async def keep_routes(context: Context) -> None:
    """Follow the providers file until cancelled, if there is one."""
    if context.settings.providers is not None:
        watch = Watch(context.settings.providers, context.routes, os.environ)
        await follow(watch, lambda routes: take_over(context, routes))


def take_over(context: Context, routes: Routes) -> None:
    """Go by other routes from now on; lines that wait for a provider which is gone still go where they were to go."""
    before = context.routes.providers.keys()
    if gone := sorted(before - routes.providers.keys()):
        _LOGGER.warning(
            "Providers that the file does not name any more: %s. This worker goes on sending them the lines that wait "
            "for them; one that starts now cannot.",
            ", ".join(gone),
        )
    context.adopt(routes)
    for name in routes.providers.keys() - before:
        consume(context.app, provider_queue(name))


def consume(app: Celery, queue: str) -> None:
    """Have this process' worker consume one more queue, from any thread; once more is harmless."""
    consumer = app.batchord_consumer
    consumer.call_soon(_add_queue, consumer, queue)


def _add_queue(consumer: Any, queue: str) -> None:
    """Run on the hub's thread. Without a connection just now, the next one consumes the queue with the others."""
    if queue not in consumer.app.amqp.queues:
        consumer.app.amqp.queues.select_add(Queue(queue, Exchange(queue), routing_key=queue))
    if consumer.task_consumer is not None:
        consumer.add_task_queue(queue)
