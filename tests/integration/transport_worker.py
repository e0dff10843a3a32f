"""A Celery app on `workers.transport`, and its worker: run as `transport_worker.py CONFIG.json`, with Celery's options."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from workers.pool import AsyncTask
from workers.transport import install
from workers.transport_inflight import IN_FLIGHT
from workers.transport_url import broker_settings


def create_app(config: dict[str, Any]) -> Celery:
    """Make the app. `runs` is a file that gets a line for each task begun; `stock_url` is for kombu's own transport."""
    install()
    app = Celery("transport_worker", set_as_current=False, task_cls=AsyncTask)
    stock_url = config.get("stock_url")
    app.conf.update({"broker_url": stock_url} if stock_url else broker_settings(config["redis_url"]))
    app.conf.update(
        worker_pool="workers.pool:TaskPool",
        worker_concurrency=1000,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_acks_late=True,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": config["visibility_timeout_s"],
            "slots": config["slots"],
            "body_encoding": "utf-8",
        },
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in config["slots"]],
        batchord_drain_timeout_s=config["drain_timeout_s"],
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
    application.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", *sys.argv[2:]])
