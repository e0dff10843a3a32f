"""How one thread wakes another that polls file descriptors. Not for passing anything on."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress


class Wake:
    """A file descriptor that any thread can make readable; a burst of `set` costs one write."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()  # stays open: the hub may listen for as long as the process lives
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._is_set = False

    def set(self) -> None:
        """Make it readable."""
        if not self._is_set:
            self._is_set = True
            os.write(self._write_fd, b"\0")

    def set_at_signals(self) -> None:
        """Be readable at each signal too: by itself, a poll goes on once the handler has returned (PEP 475)."""
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)

    def clear(self) -> None:
        """Make it unreadable; call it before looking at what was announced."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)
        self._is_set = False  # after the read: the other way round, a byte could be read that a set relies on

    def wait(self, timeout_s: float) -> None:
        """Wait until it is readable, or for the time given."""
        select.select([self.fd], [], [], timeout_s)
