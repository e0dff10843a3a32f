"""Keeping several processes up as if they were one: for `batchord worker`. What they are is the caller's."""

from __future__ import annotations

import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from batchord.processes import FleetFailedError

if TYPE_CHECKING:
    from batchord.cli.autoscale import Autoscaler
    from batchord.processes import Fleet

_POLL_S: Final = 0.2
_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def supervise(fleet: Fleet, autoscaler: Autoscaler) -> None:
    """Run a fleet until a signal has ended all of its processes; what dies otherwise is started again.

    Every signal is passed on, so that a second one means to them what it means to a process that runs alone.

    Raises:
        FleetFailedError: one died again and again right after its start; the others have drained.
    """
    told: deque[int] = deque()
    for number in _ENDING:
        signal.signal(number, lambda number, _frame: told.append(number))
    with fleet:
        failure = _keep_up(fleet, autoscaler, told)
        while fleet.pids:
            if told:
                fleet.tell(told.popleft())
            time.sleep(_POLL_S)
    if failure is not None:
        raise failure


def _keep_up(fleet: Fleet, autoscaler: Autoscaler, told: deque[int]) -> FleetFailedError | None:
    """Return once there is a signal to pass on, and the failure if that is why."""
    while not told:
        try:
            fleet.poll()
        except FleetFailedError as failure:
            told.append(signal.SIGTERM)
            return failure
        autoscaler.look()
        time.sleep(_POLL_S)
    return None
