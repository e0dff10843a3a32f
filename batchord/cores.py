"""How much processor there is for us, and what the system says of a process. Not for ending or starting any."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def cores(cgroup: Path = _CGROUP) -> int:
    """Give how many cores this process may use, at least 1: what a container is limited to, not what its host has."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return math.ceil(min(allowed, _quota(cgroup)))


def cpu_s(pid: int) -> float:
    """Give the processor time that a process has used, in seconds; 0 for one that is gone."""
    return _proc_cpu_s(pid) if sys.platform == "linux" else _ps_cpu_s(pid)


def proc_stat(pid: int) -> list[str] | None:
    """Give what Linux says of a process, from the third field of proc(5) on; None for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()  # the second field may hold spaces and brackets


def _quota(cgroup: Path) -> float:
    """Read the limit of a cgroup, of version 2 or 1, in cores; infinite where there is none."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # there is none, or it says "max"
        return math.inf


def _proc_cpu_s(pid: int) -> float:
    fields = proc_stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _ps_cpu_s(pid: int) -> float:
    shown = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    days, _, clock = shown.stdout.strip().rpartition("-")  # [days-][hours:]minutes:seconds[.hundredths]
    used_s = 0.0
    for part in clock.split(":") if clock else ():
        used_s = used_s * 60 + float(part)
    return used_s + int(days or 0) * 86_400
