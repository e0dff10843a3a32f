"""A fleet whose Redis is killed, cut short, stopped, full or replaced in mid-batch: it waits, and goes on."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest
import redis

from batchord import Client
from batchord.embedded import EmbeddedValkey
from batchord.errors import StateUnavailableError
from batchord.settings import Settings
from tests.acceptance.cli import PATIENCE_S, chat, wait_until
from tests.acceptance.fleet import QUICK, Fleet
from tests.upstream import run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchord import Batch
    from tests.upstream import Upstream

LINES = 300
SETTINGS = {"BATCHORD_REDIS_TIMEOUT_S": "1", "BATCHORD_SHARD_LINES": "50", "BATCHORD_WINDOW_LINES": "150"}
STALL_S = float(QUICK["BATCHORD_VISIBILITY_TIMEOUT_S"]) + 2
"""Longer than a claim holds, a message stays with its worker, and a call of Redis may take."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with run_upstream(latency_s=0.2) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def fleet(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), SETTINGS) as fleet:
        start_workers(fleet, provider)
        yield fleet


def start_workers(fleet: Fleet, provider: Upstream) -> None:
    fleet.write_providers(local={"base_url": provider.url, "models": ["m*"], "max_concurrency": 20})
    fleet.start(2)


@pytest.fixture
def batch(fleet: Fleet, provider: Upstream) -> Batch:
    return under_way(fleet.client(), provider)


def under_way(client: Client, provider: Upstream) -> Batch:
    """Give a batch of which some lines are answered, others in flight, others not yet sent."""
    provider.reset()
    batch = client.submit([chat(number) for number in range(LINES)])
    wait_until(lambda: provider.count() >= 60, "some lines are sent")
    return batch


def assert_complete(batch: Batch, provider: Upstream, *, twice_at_most: int = 0) -> None:
    """Every line is answered, in the input's order; nothing but so many lines was sent twice."""
    wait_until(lambda: batch.read().batch.status.is_terminal, "the batch ends")
    assert batch.read().batch.request_counts.model_dump() == {"total": LINES, "completed": LINES, "failed": 0}
    assert [line.custom_id for line in batch.results()] == [f"id-{number}" for number in range(LINES)]
    times = Counter(Counter(seen.body for seen in provider.requests).values())
    assert set(times) <= {1, 2}
    assert times[2] <= twice_at_most


def test_a_redis_that_is_killed_and_started_again_costs_nothing(fleet: Fleet, batch: Batch, provider: Upstream) -> None:
    server = psutil.Process(fleet._valkey.pid)
    server.kill()
    wait_until(fleet._valkey.restart_if_dead, "the server is started again")
    assert_complete(batch, provider)


def test_what_a_redis_lost_with_the_end_of_its_file_is_done_again(
    fleet: Fleet, batch: Batch, provider: Upstream
) -> None:
    server = psutil.Process(fleet._valkey.pid)
    server.kill()
    server.wait(PATIENCE_S)
    (log,) = (fleet._valkey.data_dir / "valkey").rglob("*.incr.aof")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 5_000)
    wait_until(fleet._valkey.restart_if_dead, "the server is started again")
    assert_complete(batch, provider, twice_at_most=100)


def test_a_redis_that_stands_still_for_longer_than_claims_and_messages_hold_costs_nothing(
    fleet: Fleet, batch: Batch, provider: Upstream
) -> None:
    server = psutil.Process(fleet._valkey.pid)
    over = time.monotonic() + STALL_S
    server.suspend()
    try:
        wait_until(lambda: time.monotonic() > over, "the time of every claim and message is over")
    finally:
        server.resume()
    assert_complete(batch, provider)


def test_a_redis_that_is_full_is_waited_for(fleet: Fleet, batch: Batch, provider: Upstream) -> None:
    logged = log_lines(fleet)
    with fleet.redis() as operator:
        operator.config_set("maxmemory", 1)
        try:
            wait_until(lambda: provider.in_flight == 0, "the fleet pauses")
            with pytest.raises(StateUnavailableError, match="memory"):
                fleet.client().submit([chat(0)])
            over = time.monotonic() + 3
            wait_until(lambda: time.monotonic() > over, "the fleet had time to fill its log")
        finally:
            operator.config_set("maxmemory", 0)
    assert_complete(batch, provider)
    assert [worker.process.poll() for worker in fleet.workers] == [None, None]
    assert 0 < log_lines(fleet) - logged < LINES / 2


def test_what_a_standby_had_not_heard_of_when_it_took_over_is_done_again(
    provider: Upstream, tmp_path: Path, unused_tcp_port: int
) -> None:
    address = tmp_path / "redis.sock"
    settings = {**SETTINGS, "BATCHORD_REDIS_URL": f"unix://{address}"}
    with EmbeddedValkey(tmp_path / "standby") as standby, Fleet(tmp_path, settings) as fleet:
        address.symlink_to(fleet._valkey.socket_path)
        start_workers(fleet, provider)
        with fleet.redis() as first, redis.Redis.from_url(standby.url) as second:
            first.config_set("port", unused_tcp_port)
            first.config_set("repl-diskless-sync-delay", 0)
            second.replicaof("127.0.0.1", unused_tcp_port)
            wait_until(lambda: second.info("replication")["master_link_status"] == "up", "the standby follows")
            client = Client(Settings(redis_url=f"unix://{address}", storage_url=fleet.env["BATCHORD_STORAGE_URL"]))
            batch = under_way(client, provider)
            second.replicaof("NO", "ONE")
            heard = provider.count()
            wait_until(lambda: provider.count() > heard + 40, "lines are answered of which the standby does not hear")
            address.unlink()
            address.symlink_to(standby.socket_path)
            psutil.Process(fleet._valkey.pid).kill()
        with closing(client):
            assert_complete(batch, provider, twice_at_most=LINES)


def log_lines(fleet: Fleet) -> int:
    return sum(len(worker.log.read_text().splitlines()) for worker in fleet.workers)
