"""A line that kills whatever process sends it, in a batch of lines that harm nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchord import Status
from tests.acceptance.cli import wait_until
from tests.acceptance.fleet import Fleet
from tests.upstream import Rule, run_upstream

if TYPE_CHECKING:
    from pathlib import Path

LINES = 60
WORKERS = 2


def restart_the_dead(fleet: Fleet) -> None:
    """Do what an operator's supervisor does."""
    dead = WORKERS - sum(worker.process.poll() is None for worker in fleet.workers)
    if dead:
        fleet.start(dead)


def test_a_line_that_kills_its_worker_fails_alone_and_its_batch_completes(tmp_path: Path) -> None:
    with run_upstream(latency_s=0.1) as upstream, Fleet(tmp_path) as fleet:
        fleet.write_providers(local={"base_url": upstream.url, "max_concurrency": 10})
        upstream.rules = [Rule(match="<7>", fault="kill")]
        fleet.start(WORKERS)
        items = ({"custom_id": f"id-{number}", "message": f"<{number}>"} for number in range(LINES))
        batch = fleet.client().submit(items, model="m")

        def has_ended() -> bool:
            restart_the_dead(fleet)
            return batch.status.is_terminal

        wait_until(has_ended, "the batch ends")
        counts = batch.read().batch.request_counts
        assert (batch.status, counts.completed, counts.failed) == (Status.COMPLETED, LINES - 1, 1)
        (failed,) = [result for result in batch.results() if result.error]
        assert (failed.custom_id, failed.error and failed.error.code) == ("id-7", "worker_died")
        assert upstream.count("<7>") <= 3  # each time it killed a process
        assert len(fleet.workers) <= 4
