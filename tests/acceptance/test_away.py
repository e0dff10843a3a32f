"""A run whose storage or whose Redis is away for a while: it waits, loses nothing, and sends nothing twice."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli import Running, chat, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.cli import Folder
    from tests.upstream import Upstream

LINES = 120
SMALL_SHARDS = {"BATCHORD_SHARD_LINES": "20", "BATCHORD_WINDOW_LINES": "60"}
SHORT_CLAIMS = {"BATCHORD_VISIBILITY_TIMEOUT_S": "4", "BATCHORD_CLAIM_S": "3", "BATCHORD_STALL_S": "4"}


def assert_complete(running: Running, folder: Folder, upstream: Upstream, lines: int = LINES) -> None:
    """Every line is answered in the input's order, and was sent once."""
    ended = running.end()
    assert ended.code == 0, ended.err
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(lines)]
    assert max(Counter(seen.body for seen in upstream.requests).values()) == 1


@contextmanager
def storage_away(folder: Folder) -> Iterator[None]:
    """Take the storage away, and leave in its place what no object can be read from or written to."""
    storage, away = folder.data / "storage", folder.data / "away"
    storage.rename(away)
    storage.write_text("not a folder", encoding="utf-8")
    yield
    storage.unlink()
    away.rename(storage)


@contextmanager
def redis_stopped(running: Running) -> Iterator[None]:
    server = running.child("valkey-server")
    server.suspend()
    yield
    server.resume()


@pytest.mark.parametrize("moment", [40, LINES])
def test_a_storage_that_is_away_for_a_while_is_waited_for(folder: Folder, upstream: Upstream, moment: int) -> None:
    folder.write_input([chat(number) for number in range(LINES)])
    folder.write_provider(upstream.url, max_concurrency=20)
    upstream.latency_s = 0.5  # time enough to take the storage away before the last answers
    log = folder.data / "workers.log"
    with Running(folder.run_arguments(), folder.path, env=SMALL_SHARDS) as running:
        wait_until(lambda: upstream.count() >= moment, "so many lines are sent, and the last of them are in flight")
        with storage_away(folder):
            wait_until(lambda: "The storage failed" in log.read_text(), "the workers meet the trouble")
        assert_complete(running, folder, upstream)


def test_a_redis_that_stands_still_while_lines_are_answered_is_waited_for(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(LINES)])
    folder.write_provider(upstream.url, max_concurrency=20)
    upstream.latency_s = 0.5
    with Running(folder.run_arguments(), folder.path, env=SMALL_SHARDS) as running:
        wait_until(lambda: upstream.count() >= 40 and upstream.in_flight > 0, "some lines are in flight")
        with redis_stopped(running):
            wait_until(lambda: upstream.in_flight == 0, "every line in flight is answered")
        assert_complete(running, folder, upstream)


def test_a_redis_that_stands_still_for_longer_than_claims_hold_costs_no_second_request(
    folder: Folder, upstream: Upstream
) -> None:
    folder.write_input([chat(number) for number in range(20)])
    folder.write_provider(upstream.url, max_concurrency=40)
    upstream.latency_s = 9.0
    with Running(folder.run_arguments("--workers", "2"), folder.path, env=SHORT_CLAIMS) as running:
        wait_until(lambda: upstream.in_flight == 20, "all lines are in flight")
        over = time.monotonic() + 6
        with redis_stopped(running):
            wait_until(lambda: time.monotonic() > over, "every claim and every message's time is over")
        assert_complete(running, folder, upstream, 20)
