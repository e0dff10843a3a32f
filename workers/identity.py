"""How a worker is named, and whether one that has such a name is known to be dead."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import uuid4

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PIDS: Final = Path("/proc/self/ns/pid")


def new_name() -> str:
    """Give this process a name, `host-pid-place` and 8 random digits: a new one each time."""
    return f"{socket.gethostname()}-{os.getpid()}-{_place()}{uuid4().hex[:8]}"


def is_dead(worker: str, own: str) -> bool:
    """Whether another worker was a process that this one could see, and runs no more."""
    (host, pid, tail), (own_host, own_pid, own_tail) = worker.rsplit("-", 2), own.rsplit("-", 2)
    is_neighbour = worker != own and (host, tail[:-8]) == (own_host, own_tail[:-8])
    return is_neighbour and (pid == own_pid or not _runs(int(pid)))


@cache
def _place() -> str:
    """Give 8 digits for where a pid means this process: containers may share a host's name, but not its pids."""
    said = ""
    with suppress(OSError):  # there is no /proc: then the host's name must do
        said = f"{_BOOT_ID.read_text()} {_PIDS.readlink()}"
    return sha256(said.encode()).hexdigest()[:8]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
