"""Runs a stock Celery worker over an input file: its own Valkey, a prefork or a gevent pool, the answers from Redis."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchord.embedded import EmbeddedValkey
from tests.benchmarks.program import arguments, say_time
from tests.benchmarks.sampler import running

if TYPE_CHECKING:
    import redis
    from celery import Celery

READY_S = 120
PROCESSES_MOST = 32
"""The most processes of a prefork pool: each has 50 MB, and holds one request."""

STUCK_S = 60
POLL_S = 0.05


@click.command()
@arguments
@click.option("--pool", type=click.Choice(["prefork", "gevent"]), required=True)
def main(source: Path, target: Path, base_url: str, in_flight: int, pool: str) -> None:
    """Send every line of SOURCE, write the answers to TARGET, and print how long that took as JSON."""
    command = [sys.executable, "-m", "celery", "-A", "tests.benchmarks.stock_tasks", "worker"]
    concurrency = concurrency_of(pool, in_flight)
    options = ["--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    with tempfile.TemporaryDirectory(prefix="batchord-bench-") as name, EmbeddedValkey(Path(name) / "valkey") as valkey:
        given = {"BENCH_REDIS_URL": valkey.url, "BENCH_BASE_URL": base_url, "BENCH_IN_FLIGHT": str(in_flight)}
        os.environ.update(given)
        from tests.benchmarks import stock_tasks  # noqa: PLC0415 (it reads the environment)

        with running([*command, *options], Path(name)):
            _wait_until_ready(stock_tasks.app)
            started_at = time.time()
            lines = _publish(source, stock_tasks.answer)
            _collect(stock_tasks.answers(), stock_tasks.ANSWERS, lines, target)
            say_time(started_at)


def concurrency_of(pool: str, in_flight: int) -> int:
    """Give how many requests a pool is asked to hold."""
    return min(in_flight, PROCESSES_MOST) if pool == "prefork" else in_flight


def _wait_until_ready(app: Celery) -> None:
    deadline = time.monotonic() + READY_S
    while not app.control.ping(timeout=0.5):
        if time.monotonic() > deadline:
            raise click.ClickException("The worker did not start.")


def _publish(source: Path, answer: Any) -> int:
    with source.open("rb") as requests:
        return sum(1 for line in map(json.loads, requests) if answer.delay(line["custom_id"], line["body"]))


def _collect(answers: redis.Redis, key: str, lines: int, target: Path) -> None:
    """Wait until every line has an answer, or none has come for long, and write them."""
    seen, deadline = 0, time.monotonic() + STUCK_S
    while seen < lines and time.monotonic() < deadline:
        time.sleep(POLL_S)  # a poll, not a pause
        if (now := int(answers.hlen(key))) > seen:
            seen, deadline = now, time.monotonic() + STUCK_S
    with target.open("wb") as output:
        output.writelines(answer + b"\n" for _, answer in answers.hscan_iter(key, count=1_000))


if __name__ == "__main__":
    main()
