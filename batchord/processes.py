"""Child processes on this machine that never outlive their owner. Not for what they do, nor for other machines."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from batchord.cores import proc_stat
from batchord.errors import BatchordError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LIFELINE_ENV = "BATCHORD_LIFELINE_FD"
PAUSES_S = (0.5, 1.0, 3.0, 10.0)
EARLY_S = 5.0
LOG_MOST_BYTES = 50_000_000

_log = logging.getLogger(__name__)


class FleetFailedError(BatchordError):
    """A process of the fleet died again and again right after its start; the message ends with its last words."""


class EarlyDeaths:
    """Says how long to pause after a death before the next start, by the deaths in a row that came right after a start.

    The n-th early death in a row pauses for the n-th of `pauses_s`; one more than there are pauses is the end.
    """

    def __init__(self, pauses_s: Sequence[float] = PAUSES_S, early_s: float = EARLY_S) -> None:
        self._pauses_s = pauses_s
        self._early_s = early_s
        self.in_a_row = 0

    def record(self, lived_s: float) -> float:
        """Count the death of a process that lived so long; the pause in seconds, infinite to give up."""
        self.in_a_row = self.in_a_row + 1 if lived_s < self._early_s else 0
        if self.in_a_row > len(self._pauses_s):
            return math.inf
        return self._pauses_s[max(self.in_a_row - 1, 0)]


class Fleet:
    """`size` processes of one command, each in its own session: what the terminal sends reaches only their owner.

    They learn of the owner's death by their end of a pipe, see `watch_lifeline`. The descriptors `keep_open` stay open
    in each for as long as it lives. What they print is appended to `log_path`, or else to the owner's own output. As
    a context it starts them, and kills those that are left at its end. Not for more than one thread.
    """

    def __init__(  # noqa: PLR0913 - what a process is made of
        self,
        argv: Sequence[str],
        size: int,
        *,
        env: Mapping[str, str],
        log_path: Path | None = None,
        keep_open: Sequence[int] = (),
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._argv = argv
        self._size = size
        self._env = env
        self._log_path = log_path
        self._keep_open = keep_open
        self._pauses_s = pauses_s
        self._members: list[_Member] = []
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._lifeline = contextlib.ExitStack()
        self._terminated = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pids(self) -> list[int]:
        """The processes that run now, those among them that have been told to end too."""
        return [process.pid for process in self._processes if process.poll() is None]

    @property
    def staying(self) -> list[int]:
        """The process at each place of the fleet: it runs, or will be started again."""
        return [member.process.pid for member in self._members]

    def start(self) -> None:
        """Start every process; none is left when one cannot be started (OSError)."""
        self._lifeline_fd, owners_end = os.pipe()
        self._lifeline.callback(os.close, owners_end)
        self._lifeline.callback(os.close, self._lifeline_fd)
        try:
            for _ in range(self._size):
                self.grow()
        except BaseException:
            self.kill()
            raise

    def grow(self) -> None:
        """Start one process more, unless they have been told to end."""
        if self._terminated:
            return
        self._members.append(_Member(self._spawn, EarlyDeaths(self._pauses_s)))

    def shrink(self) -> None:
        """Tell the youngest process to drain, and start none in its place."""
        if self._terminated:
            return
        leaving = self._members.pop().process
        leaving.terminate()
        self._leaving.append(leaving)

    def poll(self) -> None:
        """Start again whatever ended without being told to; call it a few times a second.

        Raises:
            FleetFailedError: one died early too often; the others still run.
        """
        if self._terminated:
            return
        if self._log_path is not None:
            keep_short(self._log_path)
        self._leaving = [process for process in self._leaving if process.poll() is None]
        now = time.monotonic()
        for member in self._members:
            if not member.revive(now):
                raise FleetFailedError(_failure(member, self._log_path))

    def terminate(self) -> None:
        """Tell every process to drain (SIGTERM) and start none from now on; `pids` tells when they are done."""
        self.tell(signal.SIGTERM)

    def tell(self, number: int) -> None:
        """Send every process a signal that ends it, and start none from now on."""
        self._terminated = True
        for process in self._processes:
            process.send_signal(number)

    def drain(self, timeout_s: float) -> bool:
        """Terminate and wait; whether all of them ended in time. Those that did not run on, until `kill`."""
        self.terminate()
        deadline = time.monotonic() + timeout_s
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        return not self.pids

    def kill(self) -> None:
        """End every process now, with whatever it started in its session, and let go of the lifeline."""
        self._terminated = True
        for process in self._processes:
            kill_group(process)
        self._lifeline.close()

    @property
    def _processes(self) -> list[subprocess.Popen[bytes]]:
        return [*(member.process for member in self._members), *self._leaving]

    def _spawn(self) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as opened:
            log = opened.enter_context(self._log_path.open("ab")) if self._log_path else None
            return subprocess.Popen(  # noqa: S603 - the owner's own command
                self._argv,
                env={**self._env, LIFELINE_ENV: str(self._lifeline_fd)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                pass_fds=(self._lifeline_fd, *self._keep_open),
                start_new_session=True,
            )


class _Member:
    """One place in the fleet: the process that fills it now, and when the next one may."""

    def __init__(self, spawn: Callable[[], subprocess.Popen[bytes]], deaths: EarlyDeaths) -> None:
        self._spawn = spawn
        self.deaths = deaths
        self._start()

    def _start(self) -> None:
        self.process = self._spawn()
        self._started_at = time.monotonic()
        self._next_start_at: float | None = None

    def revive(self, now: float) -> bool:
        """Fill the place again if its process ended and the pause is over; False when it has been given up."""
        if self.process.poll() is None:
            return True
        if self._next_start_at is None:
            pause_s = self.deaths.record(now - self._started_at)
            self._next_start_at = now + pause_s
            _log.warning("process %d ended: exit status %d", self.process.pid, self.process.returncode)
        if now >= self._next_start_at:
            self._start_again(now)
        return self._next_start_at != math.inf

    def _start_again(self, now: float) -> None:
        """Start, or count what cannot be started as one more early death: it is no reason to end the others at once."""
        try:
            self._start()
        except OSError as error:
            self._next_start_at = now + self.deaths.record(0)
            _log.warning("a process could not be started: %s", error)


def watch_lifeline(on_end: Callable[[], None], *, grace_s: float) -> None:
    """In a process of a `Fleet`: have `on_end` called in a thread once the owner has died; elsewhere do nothing.

    `on_end` asks the process to drain; if it is still there `grace_s` seconds later, it is killed.
    """
    fd = os.environ.pop(LIFELINE_ENV, None)  # popped: it is this process's own, not for its children
    if fd is None:
        return
    threading.Thread(target=_await_end, args=(int(fd), on_end, grace_s), name="lifeline", daemon=True).start()


def _await_end(fd: int, on_end: Callable[[], None], grace_s: float) -> None:
    os.read(fd, 1)  # nothing is ever written: it returns when the owner's end is closed
    on_end()
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill the process group that a child leads, and reap the child."""
    if leader.returncode is None:  # not reaped yet, so that its number is still its own
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when only zombies are left
            os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


def identity(pid: int) -> str | None:
    """What tells a process from a later one of the same number: when it was started; None if it is gone."""
    return _proc_identity(pid) if sys.platform == "linux" else _ps_identity(pid)


def _proc_identity(pid: int) -> str | None:
    """The boot, and the tick of the start in it: exact, and from /proc since a slim container has no ps."""
    fields = proc_stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"


def _ps_identity(pid: int) -> str | None:
    ps = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    shown = subprocess.run(ps, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)  # noqa: S603
    state, _, started = shown.stdout.strip().partition(" ")
    return started.strip() if started and state[0] not in "ZX" else None


def end_stranger(pid: int, recorded: str, timeout_s: float) -> bool:
    """End a process that is not our child, if it still is who was recorded: ask, then kill; whether it is gone."""
    for asked in (signal.SIGTERM, signal.SIGKILL):
        if identity(pid) == recorded:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, asked)
        deadline = time.monotonic() + timeout_s
        while identity(pid) == recorded and time.monotonic() < deadline:
            time.sleep(0.02)
    return identity(pid) != recorded


def keep_short(log: Path, most_bytes: int = LOG_MOST_BYTES) -> None:
    """Begin a log anew that has grown too long; what it held is beside it, as `NAME.1`. Its writers must append.

    A log that is gone, or a full disk, changes nothing: it is no reason to end who writes it.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size > most_bytes:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def last_lines(path: Path, count: int = 10) -> str:
    """Read the end of a log, for an error's message."""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 8192))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])


def _failure(member: _Member, log_path: Path | None) -> str:
    times, status = member.deaths.in_a_row, member.process.returncode
    said = f" The last lines of {log_path}:\n{last_lines(log_path)}" if log_path else ""
    return f"A process died {times} times in a row right after its start, with exit status {status}.{said}"
