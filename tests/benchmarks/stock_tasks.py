"""The Celery app that a team would write in an afternoon: a task a line, one HTTP call, the answer into a Redis hash.

It is stock on purpose: Celery's own transport and pools, and requests. Besides what `celery worker` needs it sets what
one finds out soon: acknowledge late (else a killed worker loses its lines), keep no results (they are in the hash), a
longer wait for its messages than any call takes, and connections enough for as many greenlets. It reads the environment
on import because `celery -A` imports it.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

import redis
import requests
from celery import Celery
from requests.adapters import HTTPAdapter

REDIS_URL = os.environ["BENCH_REDIS_URL"]
IN_FLIGHT = int(os.environ["BENCH_IN_FLIGHT"])
URL = f"{os.environ['BENCH_BASE_URL']}/chat/completions"
ANSWERS = "bench:answers"
REDIS_CONNECTIONS = 50
TIMEOUT_S = 600

app = Celery("stock", broker=REDIS_URL.replace("unix://", "redis+socket://"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"max_connections": IN_FLIGHT + 50, "visibility_timeout": 2 * TIMEOUT_S},
)


@app.task
def answer(custom_id: str, body: dict[str, Any]) -> None:
    """Send a line and keep what came."""
    response = _session().post(URL, json=body, timeout=TIMEOUT_S)
    kept = {"custom_id": custom_id, "response": {"status_code": response.status_code, "body": response.json()}}
    answers().hset(ANSWERS, custom_id, json.dumps(kept))


@cache
def _session() -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=IN_FLIGHT))
    return session


@cache
def answers() -> redis.Redis:
    """Give the process's client."""
    return redis.Redis(
        connection_pool=redis.BlockingConnectionPool.from_url(REDIS_URL, max_connections=REDIS_CONNECTIONS)
    )
