"""The fleet's processes: real ones, killed for real."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from batchord import processes
from batchord.processes import EarlyDeaths, Fleet, FleetFailedError, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Buffered, so that each line that the processes print into their common log is one write.
ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": ""}
AT_ONCE = (0.0, 0.0, 0.0, 0.0)

# Drains when it is told to.
OBEDIENT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("up", os.getpid(), flush=True)
signal.sigwait({signal.SIGTERM})
print("drained", flush=True)
"""
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", os.getpid(), flush=True)
signal.pause()
"""
PARENT = """
import signal, subprocess
print("up", subprocess.Popen(["sleep", "600"]).pid, flush=True)
signal.pause()
"""
# Watches its lifeline, for which its own children shall not look.
WATCHING = """
import os, signal
from batchord.processes import LIFELINE_ENV, watch_lifeline
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM), grace_s=600)
print("up", os.getpid(), LIFELINE_ENV in os.environ, flush=True)
signal.sigwait({signal.SIGTERM})
print("drained", flush=True)
"""
HANGING = """
import os, signal
from batchord.processes import watch_lifeline
watch_lifeline(lambda: print("asked", flush=True), grace_s=0.1)
print("up", os.getpid(), flush=True)
signal.pause()
"""
OWNER = """
import os, pathlib, signal, sys
from batchord.processes import Fleet
child, log = sys.argv[1:]
with Fleet([sys.executable, "-c", child], 2, env=os.environ, log_path=pathlib.Path(log)):
    signal.pause()
"""


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) == before


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def fleet_of(code: str, log_path: Path, size: int = 1) -> Fleet:
    return Fleet([sys.executable, "-c", code], size, env=ENV, log_path=log_path, pauses_s=AT_ONCE)


def said(log_path: Path, word: str) -> list[list[str]]:
    """What follows the word in each line that starts with it."""
    lines = log_path.read_text().splitlines() if log_path.exists() else []
    return [line.split()[1:] for line in lines if line.split()[:1] == [word]]


def pids_up(log_path: Path, count: int) -> list[int]:
    until(lambda: len(said(log_path, "up")) >= count)
    return [int(words[0]) for words in said(log_path, "up")]


@pytest.mark.parametrize(
    ("lives_s", "pauses_s"),
    [
        ([0, 0, 0, 0, 0], [0.5, 1, 3, 10, math.inf]),
        ([60, 60, 60, 60, 60, 60], [0.5] * 6),
        ([0, 0, 0, 0, 5, 0, 0, 4.9, 0, 0], [0.5, 1, 3, 10, 0.5, 0.5, 1, 3, 10, math.inf]),
    ],
)
def test_only_deaths_in_a_row_right_after_the_start_are_held_against_a_process(
    lives_s: list[float], pauses_s: list[float]
) -> None:
    deaths = EarlyDeaths()
    assert [deaths.record(lived_s) for lived_s in lives_s] == pauses_s


def test_every_process_drains_before_the_fleet_ends(log_path: Path) -> None:
    with fleet_of(OBEDIENT, log_path, size=3) as fleet:
        assert sorted(pids_up(log_path, 3)) == sorted(fleet.pids)
        assert fleet.drain(30)
        assert fleet.pids == []
        assert len(said(log_path, "drained")) == 3


def test_a_killed_process_is_replaced_and_the_others_are_left_alone(log_path: Path) -> None:
    with fleet_of(OBEDIENT, log_path, size=2) as fleet:
        victim, other = pids_up(log_path, 2)

        def replaced() -> bool:
            fleet.poll()
            return len(fleet.pids) == 2 and victim not in fleet.pids

        os.kill(victim, signal.SIGKILL)
        until(replaced)
        assert other in fleet.pids


def test_a_process_that_cannot_be_started_again_for_now_ends_no_other_and_is_tried_again(
    log_path: Path, tmp_path: Path
) -> None:
    command, hidden = tmp_path / "command", tmp_path / "hidden"
    command.symlink_to(sys.executable)
    with Fleet([str(command), "-c", OBEDIENT], 2, env=ENV, log_path=log_path, pauses_s=AT_ONCE) as fleet:
        victim, other = pids_up(log_path, 2)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in fleet.pids)
        command.rename(hidden)
        fleet.poll()
        assert fleet.pids == [other]
        hidden.rename(command)
        fleet.poll()
        assert len(fleet.pids) == 2


def test_a_process_that_can_never_be_started_again_fails_the_fleet(log_path: Path, tmp_path: Path) -> None:
    command = tmp_path / "command"
    command.symlink_to(sys.executable)

    def failed() -> bool:
        fleet.poll()
        return False

    with Fleet([str(command), "-c", OBEDIENT], 1, env=ENV, log_path=log_path, pauses_s=AT_ONCE) as fleet:
        (victim,) = pids_up(log_path, 1)
        command.unlink()
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(FleetFailedError):
            until(failed)


def test_a_log_that_is_taken_away_ends_no_process(log_path: Path) -> None:
    with fleet_of(OBEDIENT, log_path) as fleet:
        (pid,) = pids_up(log_path, 1)
        log_path.unlink()
        fleet.poll()
        assert fleet.pids == [pid]


def test_a_process_that_keeps_dying_fails_the_fleet_with_its_last_words(log_path: Path) -> None:
    def failed() -> bool:
        fleet.poll()
        return False

    with fleet_of("raise SystemExit('no such provider')", log_path) as fleet:
        with pytest.raises(FleetFailedError, match=r"(?s)5 times in a row.*status 1.*worker\.log.*no such provider"):
            until(failed)
        with pytest.raises(FleetFailedError):
            fleet.poll()
    assert log_path.read_text().count("no such provider") == 5


def test_no_process_is_started_again_once_the_fleet_is_told_to_end(log_path: Path) -> None:
    with fleet_of(OBEDIENT, log_path, size=2) as fleet:
        pids_up(log_path, 2)
        fleet.terminate()
        until(lambda: not fleet.pids)
        fleet.poll()
        assert fleet.pids == []


def test_a_process_that_does_not_drain_in_time_is_reported_and_can_be_killed(log_path: Path) -> None:
    with fleet_of(STUBBORN, log_path) as fleet:
        (pid,) = pids_up(log_path, 1)
        assert not fleet.drain(0.05)
        assert fleet.pids == [pid]
        fleet.kill()
        assert not psutil.pid_exists(pid)


def test_kill_ends_what_a_process_has_started_too(log_path: Path) -> None:
    with fleet_of(PARENT, log_path) as fleet:
        (grandchild,) = pids_up(log_path, 1)
        fleet.kill()
    until(lambda: identity(grandchild) is None)


def test_a_command_that_cannot_be_started_leaves_nothing(log_path: Path) -> None:
    open_before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError), Fleet(["/no/such/command"], 2, env=ENV, log_path=log_path):
        pass
    assert psutil.Process().num_fds() == open_before


@pytest.fixture
def killed_owner(log_path: Path) -> Iterator[Callable[[str], list[int]]]:
    """Starts an owner with two processes of the given code, kills it, and gives the numbers of the two."""
    left: list[int] = []

    def start_and_kill(code: str) -> list[int]:
        with subprocess.Popen([sys.executable, "-c", OWNER, code, str(log_path)], env=ENV) as owner:
            try:
                left.extend(pids_up(log_path, 2))
            finally:
                owner.kill()
        return left

    yield start_and_kill
    for pid in left:
        if identity(pid) is not None:
            os.kill(pid, signal.SIGKILL)


def test_the_processes_of_a_killed_owner_drain_and_end(
    killed_owner: Callable[[str], list[int]], log_path: Path
) -> None:
    pids = killed_owner(WATCHING)
    until(lambda: all(identity(pid) is None for pid in pids))
    assert len(said(log_path, "drained")) == 2
    assert [words[1] for words in said(log_path, "up")] == ["False", "False"]


def test_a_process_that_hangs_after_its_owner_was_killed_is_killed_too(
    killed_owner: Callable[[str], list[int]], log_path: Path
) -> None:
    pids = killed_owner(HANGING)
    until(lambda: all(identity(pid) is None for pid in pids))
    assert len(said(log_path, "asked")) == 2


def test_a_process_without_an_owner_has_no_lifeline_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processes.LIFELINE_ENV, raising=False)
    processes.watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGKILL), grace_s=0)


READ_IDENTITY = [
    pytest.param(identity, id="of this platform"),
    pytest.param(
        processes._ps_identity, id="ps", marks=pytest.mark.skipif(shutil.which("ps") is None, reason="no ps here")
    ),
]


@pytest.mark.parametrize("read", READ_IDENTITY)
def test_an_identity_is_there_from_the_start_and_ends_with_the_process(read: Callable[[int], str | None]) -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        try:
            first = read(child.pid)
            assert first is not None
            assert read(child.pid) == first != read(os.getpid())
        finally:
            child.kill()
    assert read(child.pid) is None


@pytest.mark.parametrize("read", READ_IDENTITY)
def test_a_zombie_counts_as_gone(read: Callable[[int], str | None]) -> None:
    with subprocess.Popen(["/bin/sh", "-c", ":"]) as child:
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert read(child.pid) is None


def test_a_stranger_that_ignores_the_request_is_killed_and_a_namesake_is_spared(log_path: Path) -> None:
    with fleet_of(STUBBORN, log_path) as fleet:
        (pid,) = pids_up(log_path, 1)
        assert processes.end_stranger(pid, "another process", timeout_s=5)
        assert fleet.pids == [pid]
        assert processes.end_stranger(pid, str(identity(pid)), timeout_s=0.05)
        assert fleet.pids == []


def test_a_log_that_grew_too_long_begins_anew_and_what_it_held_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "workers.log"
    with path.open("ab") as log:
        log.write(b"old\n")
        log.flush()
        processes.keep_short(path, most_bytes=4)
        assert path.read_bytes() == b"old\n"
        processes.keep_short(path, most_bytes=3)
        log.write(b"new\n")
    assert (path.read_bytes(), (tmp_path / "workers.log.1").read_bytes()) == (b"new\n", b"old\n")
