"""A fleet of this command's own: an embedded Valkey, workers, maybe the API, and a client, which end with it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final, Self

from batchord.batch import Batch
from batchord.cli.autoscale import Autoscaler
from batchord.cli.server import api_argv, listening_environment, server_environment, worker_argv
from batchord.client import Client
from batchord.embedded import EmbeddedValkey
from batchord.errors import BatchordError, UnavailableError
from batchord.processes import Fleet
from batchord.progress import follow
from batchord.providers_file import load_routes
from batchord.standing import Troubles
from batchord.state import conditions

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from batchord.cli.autoscale import Bounds
    from batchord.settings import Settings
    from batchord.state.batches import BatchRecord

POLL_S: Final = 0.1
_STOPPING: Final = "Stopping: requests in flight are finished, the rest is kept. Press Ctrl-C again to end at once."


class InterruptedRunError(BatchordError):
    """The run was ended by Ctrl-C or SIGTERM; what was done is kept in the data directory."""


class LocalFleet:
    """Runs batches in one data directory, which it alone may use meanwhile. A context manager.

    `interrupts` counts how often Ctrl-C or SIGTERM have asked for the end.
    """

    def __init__(self, settings: Settings, workers: Bounds) -> None:
        self._workers = workers
        self._open = ExitStack()
        self._valkey = EmbeddedValkey(settings.data_dir, settings.drain_timeout_s)
        own = {"redis_url": self._valkey.url, "storage_url": "", "fleet_size": workers.least}
        self.settings = settings.model_copy(update=own)
        self._fleets: list[Fleet] = []
        self._tended: list[Callable[[], None]] = []
        self._obeyed = 0
        self.interrupts = 0

    def __enter__(self) -> Self:
        """Start the Valkey; the workers wait for `start_workers`."""
        self._open.enter_context(self._valkey)
        self.client = Client(self.settings)
        self._open.callback(self.client.close)
        return self

    def __exit__(self, *_: object) -> None:
        """End every process."""
        self._open.close()

    def start_workers(self) -> None:
        """Start the workers, and from now on drain them at Ctrl-C and SIGTERM."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it, and so must what it started
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._open.callback(signal.signal, number, signal.signal(number, self._interrupt))
        providers = load_routes(self.settings, os.environ).providers
        self.client.state.run_all([conditions.begin_anew(name) for name in providers])
        fleet = self._start(worker_argv(), self._workers.least, "workers.log", server_environment(self.settings))
        scaler = Autoscaler(fleet, self._workers, self.settings.redis_url, providers)
        self._tended.append(self._open.enter_context(closing(scaler)).look)

    def start_api(self, listener: socket.socket) -> None:
        """Start the API on a listening socket, which each process that takes its place goes on with."""
        env = {**server_environment(self.settings), **listening_environment(listener)}
        self._start(api_argv(), 1, "api.log", env, listener.fileno())

    def watch(self, say: Callable[[str], None]) -> bool:
        """Start again what died, and obey interrupts; call it a few times a second.

        Returns:
            False once every process has ended that was told to.

        Raises:
            FleetFailedError, ValkeyFailedError: a process keeps dying.
        """
        self._valkey.restart_if_dead()
        for tend in self._tended:
            tend()
        if self._obeyed < self.interrupts:
            self._obey_interrupt(say)
        return not self._obeyed or any(fleet.pids for fleet in self._fleets)

    def follow(self, batch_id: str) -> BatchRecord:
        """Show the batch's progress until it has ended, and drain the workers.

        Raises:
            InterruptedRunError: the user wanted an end; the workers have ended.
            FleetFailedError, ValkeyFailedError: a process keeps dying.
        """
        troubles = Troubles(self.client.state)
        with follow(show=True) as shown:
            while True:
                is_running = self.watch(shown.say)
                if (record := self._read(batch_id)) is not None:
                    shown.update(record, troubles.of(record))
                    if record.batch.status.is_terminal:
                        break
                if not is_running:
                    raise InterruptedRunError(_kept(record))
                time.sleep(POLL_S)
        for fleet in self._fleets:
            fleet.drain(self.settings.drain_timeout_s)
        return record

    def _start(self, argv: Sequence[str], size: int, log_name: str, env: Mapping[str, str], *keep_open: int) -> Fleet:
        log_path = self.settings.data_dir / log_name
        held = [self._valkey.lifeline_fd, *keep_open]
        fleet = self._open.enter_context(Fleet(argv, size, env=env, log_path=log_path, keep_open=held))
        self._fleets.append(fleet)
        self._tended.append(fleet.poll)
        return fleet

    def _read(self, batch_id: str) -> BatchRecord | None:
        """Read the batch; None while the Valkey is being restarted."""
        try:
            return Batch(self.client, batch_id).read()
        except UnavailableError:
            return None

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.interrupts += 1

    def _obey_interrupt(self, say: Callable[[str], None]) -> None:
        self._obeyed = self.interrupts
        if self._obeyed == 1:
            say(_STOPPING)
        for fleet in self._fleets:
            if self._obeyed == 1:
                fleet.terminate()
            else:
                fleet.kill()


def _kept(record: BatchRecord | None) -> str:
    if record is None or not record.batch.request_counts.total:
        return "Interrupted before anything was sent."
    return (
        f"Interrupted: {record.recorded:,} of {record.batch.request_counts.total:,} lines are done and kept. "
        "Run the same command again to go on from there."
    )
