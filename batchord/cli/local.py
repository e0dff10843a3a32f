"""A fleet of this command's own: an embedded Valkey, workers, and a client, which end with it."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from batchord.batch import Batch
from batchord.cli.server import server_environment, worker_argv
from batchord.client import Client
from batchord.embedded import EmbeddedValkey
from batchord.errors import BatchordError, UnavailableError
from batchord.processes import Fleet
from batchord.progress import follow

if TYPE_CHECKING:
    from types import FrameType

    from batchord.settings import Settings
    from batchord.state.batches import BatchRecord

_POLL_S: Final = 0.1
_KEPT_S: Final = 100 * 365 * 86_400
"""A run's data is its user's, who deletes the folder: what was forgotten would be sent, and billed, again."""


class InterruptedRunError(BatchordError):
    """The run was ended by Ctrl-C or SIGTERM; what was done is kept in the data directory."""


class LocalFleet:
    """Runs batches in one data directory, which it alone may use meanwhile. A context manager."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._workers = workers
        self._open = ExitStack()
        self._valkey = EmbeddedValkey(settings.data_dir, settings.drain_timeout_s)
        own: dict[str, Any] = {
            "redis_url": self._valkey.url,
            "storage_url": "",
            "retention_s": _KEPT_S,
            "fleet_size": workers,
        }
        self.settings = settings.model_copy(update=own)
        self._interrupts = 0

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
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._open.callback(signal.signal, number, signal.signal(number, self._interrupt))
        self._fleet = Fleet(
            worker_argv(),
            self._workers,
            env=server_environment(self.settings),
            log_path=self.settings.data_dir / "workers.log",
            keep_open=[self._valkey.lifeline_fd],
        )
        self._open.enter_context(self._fleet)

    def follow(self, batch_id: str) -> BatchRecord:
        """Show the batch's progress until it has ended, and drain the workers.

        Raises:
            InterruptedRunError: the user wanted an end; the workers have ended.
            FleetFailedError, ValkeyFailedError: a process keeps dying.
        """
        with follow(show=True) as shown:
            told = 0
            while True:
                self._valkey.restart_if_dead()
                self._fleet.poll()
                if told < self._interrupts:
                    told = self._obey_interrupt(shown.say)
                if (record := self._read(batch_id)) is not None:
                    shown.update(record)
                    if record.batch.status.is_terminal:
                        break
                if told and not self._fleet.pids:
                    raise InterruptedRunError(_kept(record))
                time.sleep(_POLL_S)
        self._fleet.drain(self.settings.drain_timeout_s)
        return record

    def _read(self, batch_id: str) -> BatchRecord | None:
        """Read the batch; None while the Valkey is being restarted."""
        try:
            return Batch(self.client, batch_id).read()
        except UnavailableError:
            return None

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupts += 1

    def _obey_interrupt(self, say: Any) -> int:
        if self._interrupts == 1:
            say("Stopping: requests in flight are finished, the rest is kept. Press Ctrl-C again to end at once.")
            self._fleet.terminate()
        else:
            self._fleet.kill()
        return self._interrupts


def _kept(record: BatchRecord | None) -> str:
    if record is None or not record.batch.request_counts.total:
        return "Interrupted before anything was sent."
    return (
        f"Interrupted: {record.recorded:,} of {record.batch.request_counts.total:,} lines are done and kept. "
        "Run the same command again to go on from there."
    )
