"""`batchord worker` of several processes: kept up, drained as one, never orphaned, and within a provider's limit."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import psutil
import pytest

from batchord import Status
from batchord.state import keys
from tests.acceptance.cli import PATIENCE_S, all_gone, environment, wait_until
from tests.acceptance.fleet import Fleet, Worker
from tests.upstream import Upstream, run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchord import Batch

LIMIT = 20


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Fleet, Upstream]]:
    with run_upstream(latency_s=0.1) as upstream, Fleet(tmp_path) as fleet:
        fleet.write_providers(local={"base_url": upstream.url, "max_concurrency": LIMIT})
        yield fleet, upstream


def start(fleet: Fleet, *arguments: str, processes: int) -> Worker:
    """Start one command, and return once so many workers live."""
    options = ["worker", "--providers", str(fleet.path / "providers.toml"), *arguments]
    worker = Worker(options, fleet.path / f"several-{len(fleet.workers)}.log", environment(fleet.env))
    fleet.workers.append(worker)
    wait_until(lambda: len(fleet.living()) == processes, f"{processes} live, see {worker.log}")
    return worker


def submit(fleet: Fleet, count: int) -> Batch:
    return fleet.client().submit(({"custom_id": f"id-{n}", "message": f"<{n}>"} for n in range(count)), model="m")


def parts(fleet: Fleet) -> list[int]:
    """How many of the provider's permits each worker has."""
    with fleet.redis() as client:
        return sorted(int(part.split()[0]) for part in client.hvals(keys.SHARES))


def assert_complete(batch: Batch, upstream: Upstream, count: int) -> None:
    """See every line answered, and sent once."""
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    assert [result.custom_id for result in batch.results() if result.ok] == [f"id-{n}" for n in range(count)]
    sent = Counter(seen.body for seen in upstream.requests)
    assert (len(sent), set(sent.values())) == (count, {1})


def test_a_process_that_died_is_replaced_and_a_signal_drains_them_all(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    worker = start(fleet, "--workers", "2", processes=2)
    first = fleet.living()
    assert worker.pid not in first
    killed = min(first)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(fleet.living() - {killed}) == 2, "another one lives in its place")
    assert f"process {killed} ended: exit status -9" in worker.log.read_text()

    batch = submit(fleet, 200)
    wait_until(lambda: upstream.in_flight > 0, "they are busy")
    processes = [psutil.Process(pid) for pid in fleet.living() - {killed}]
    assert worker.drain() == 0
    assert all_gone(processes)
    assert upstream.in_flight == 0
    assert 0 < batch.read().recorded == upstream.count()
    start(fleet, "--workers", "1", processes=2)  # one of which is the killed one, which nobody has taken off the list
    assert_complete(batch, upstream, 200)


def test_a_killed_supervisor_leaves_no_orphan_and_its_lines_are_finished(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    worker = start(fleet, "--workers", "2", processes=2)
    processes = [psutil.Process(pid) for pid in fleet.living()]
    batch = submit(fleet, 200)
    wait_until(lambda: upstream.in_flight > 0, "they are busy")
    worker.kill()
    wait_until(lambda: all_gone(processes), "its processes have drained")
    assert 0 < batch.read().recorded == upstream.count()
    start(fleet, "--workers", "1", processes=1)
    assert_complete(batch, upstream, 200)


def test_workers_that_come_and_go_under_load_never_pass_the_provider_s_limit(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    start(fleet, "--workers", "1", processes=1)
    batch = submit(fleet, 800)
    wait_until(lambda: upstream.max_in_flight == LIMIT, "one worker uses the whole limit")
    leaving = start(fleet, "--workers", "2", processes=3)
    wait_until(lambda: parts(fleet) == [6, 7, 7], "all three have a part")
    assert leaving.drain() == 0
    wait_until(lambda: parts(fleet) == [LIMIT], "the one that stayed has the whole limit again")
    assert_complete(batch, upstream, 800)
    assert upstream.max_in_flight == LIMIT


def test_a_worker_in_a_killed_one_s_place_has_its_permits_at_once(tmp_path: Path) -> None:
    with run_upstream(latency_s=0.1) as upstream, Fleet(tmp_path, {"BATCHORD_CLAIM_S": "600"}) as fleet:
        fleet.write_providers(local={"base_url": upstream.url, "max_concurrency": LIMIT})
        (killed,) = fleet.start()
        killed.kill()
        fleet.start()
        batch = submit(fleet, 100)
        assert_complete(batch, upstream, 100)
