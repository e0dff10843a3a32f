"""A fleet whose storage is full, or away, in mid-batch: it waits, and goes on. For a folder that is away see `away`."""

from __future__ import annotations

import resource
from collections import Counter
from typing import TYPE_CHECKING

import psutil

from tests.acceptance.cli import chat, wait_until
from tests.acceptance.fleet import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from batchord import Batch
    from tests.upstream import Upstream

LINES = 200
SHARDS = {"BATCHORD_SHARD_LINES": "50", "BATCHORD_WINDOW_LINES": "100"}
TEXT = "x" * 1_000
FULL_BYTES = 30_000
"""More than a worker's log has, less than any part of a shard."""


def under_way(fleet: Fleet, upstream: Upstream) -> Batch:
    """Give a batch of which some lines are answered, and no part is written yet."""
    upstream.latency_s = 0.3
    fleet.write_providers(local={"base_url": upstream.url, "models": ["m*"], "max_concurrency": 20})
    fleet.start(2)
    batch = fleet.client().submit([chat(number, text=f"<{number}>{TEXT}") for number in range(LINES)])
    wait_until(lambda: upstream.count() >= 25, "some lines are sent")
    return batch


def assert_complete(batch: Batch, upstream: Upstream) -> None:
    """Every line is answered, in the input's order, and was sent once."""
    wait_until(lambda: batch.status.is_terminal, "the batch ends")
    assert [line.custom_id for line in batch.results()] == [f"id-{number}" for number in range(LINES)]
    assert max(Counter(seen.body for seen in upstream.requests).values()) == 1


def log_of(fleet: Fleet) -> str:
    return "".join(worker.log.read_text() for worker in fleet.workers)


def limit_files(fleet: Fleet, size_bytes: int) -> None:
    """Let no worker write a file larger than that, as it could not on a full disk."""
    for worker in fleet.workers:
        psutil.Process(worker.pid).rlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_for_a_while_is_waited_for(tmp_path: Path, upstream: Upstream) -> None:
    with Fleet(tmp_path, SHARDS) as fleet:
        batch = under_way(fleet, upstream)
        limit_files(fleet, FULL_BYTES)
        wait_until(lambda: "File too large" in log_of(fleet), "the workers meet the trouble")
        limit_files(fleet, resource.RLIM_INFINITY)
        assert_complete(batch, upstream)
        wait_until(lambda: not list((tmp_path / "storage" / "batches").rglob("*.jsonl*")), "no part is left behind")
