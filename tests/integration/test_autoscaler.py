"""The loop that keeps the size of a fleet: real processes that are busy or idle, and a real queue."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
import redis

from batchord.broker import provider_queue
from batchord.cli import autoscale
from batchord.cli.autoscale import Autoscaler, Bounds
from batchord.processes import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

BUSY = "while True: pass"
IDLE = "import signal; signal.pause()"
BOUND_S = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often and decide soon; on a machine that others use, a busy process may have a tenth of a core."""
    monkeypatch.setattr(autoscale, "LOOK_S", 0.2)
    monkeypatch.setattr(autoscale, "BUSY", 0.1)
    monkeypatch.setattr(autoscale, "SPARE", 0.02)
    monkeypatch.setattr(autoscale, "SPARE_LOOKS", 4)


@contextmanager
def scaled(code: str, size: int, redis_url: str, folder: Path) -> Iterator[tuple[Fleet, Callable[[], None]]]:
    """Give a fleet of processes that run this code, and what its owner calls a few times a second."""
    fleet = Fleet([sys.executable, "-c", code], size, env=os.environ, log_path=folder / "log")
    with fleet, closing(Autoscaler(fleet, Bounds(most=2, least=1), redis_url, ["one", "two"])) as scaler:

        def tend() -> None:
            fleet.poll()
            scaler.look()
            time.sleep(0.02)  # a poll, not a pause

        yield fleet, tend


def until(condition: Callable[[], bool], tend: Callable[[], None]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline, "the fleet does not get that size"
        tend()


@contextmanager
def waiting(valkey: EmbeddedValkey, queue: str) -> Iterator[None]:
    """Have a message wait."""
    with redis.Redis.from_url(valkey.url) as server:
        server.lpush(queue, "a message")
        yield
        server.delete(queue)


def test_busy_processes_get_another_one_while_lines_wait_up_to_the_most(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    with waiting(valkey, provider_queue("two")), scaled(BUSY, 1, valkey.url, tmp_path) as (fleet, tend):
        until(lambda: len(fleet.staying) == 2, tend)
        looks = time.monotonic() + 10 * autoscale.LOOK_S
        until(lambda: time.monotonic() > looks, tend)
        assert len(fleet.pids) == 2


def test_busy_processes_for_which_no_line_waits_stay_as_they_are(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    with waiting(valkey, provider_queue("three")), scaled(BUSY, 1, valkey.url, tmp_path) as (fleet, tend):
        looks = time.monotonic() + 10 * autoscale.LOOK_S
        until(lambda: time.monotonic() > looks, tend)
        assert len(fleet.pids) == 1


def test_idle_processes_are_drained_down_to_the_least(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    with scaled(IDLE, 2, valkey.url, tmp_path) as (fleet, tend):
        stays, _ = fleet.pids
        until(lambda: len(fleet.pids) == 1, tend)
        assert fleet.pids == fleet.staying == [stays]


def test_a_machine_that_can_start_no_more_processes_keeps_those_it_has(
    valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with waiting(valkey, "provider.two"), scaled(BUSY, 1, valkey.url, tmp_path) as (fleet, tend):
        monkeypatch.setattr(fleet, "_argv", ["/no/such/command"])
        until(lambda: "could not be started" in caplog.text, tend)
        assert len(fleet.pids) == 1


def test_a_redis_that_is_away_changes_nothing(tmp_path: Path) -> None:
    with scaled(BUSY, 1, f"unix://{tmp_path}/none.sock", tmp_path) as (fleet, tend):
        looks = time.monotonic() + 10 * autoscale.LOOK_S
        until(lambda: time.monotonic() > looks, tend)
        assert len(fleet.pids) == 1
