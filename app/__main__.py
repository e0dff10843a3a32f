"""One process of the API, as `batchord api` and `batchord serve` start it: `python -m app`. Not for what it serves."""

from __future__ import annotations

import logging
import os
import signal
import sys
from socket import socket
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from app.main import create_app
from batchord.errors import BatchordError
from batchord.listener import handed_down, listen
from batchord.processes import watch_lifeline
from batchord.service.keys import require_key
from batchord.settings import read_settings
from batchord.storage import Blobs

_FINISH_S: Final = 30
"""How long the requests in flight may take once the process has been told to end."""
_CLOSE_S: Final = 10
_NOT_RUN: Final = 3
"""The exit status of every command that a setting keeps from being carried out."""


class _Server(uvicorn.Server):
    """Tells the answers that would never end by themselves that the process is about to."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Begin to end; uvicorn's own would raise the signal once more at the end, for an exit status of a failure."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Take no connection any more, and wait for the answers in flight."""
        self._app.state.backend.stopping.set()
        await super().shutdown(sockets)


def main() -> int:
    """Serve until SIGTERM."""
    level = os.environ.get("BATCHORD_LOG_LEVEL", "INFO").upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = read_settings()
        require_key(settings)
        Blobs(settings.blobs_url)  # a URL that is none is told here, not as a failed start of the application
        app = create_app(settings)
        listener = handed_down() or listen(settings.host, settings.port)
    except BatchordError as error:
        sys.stderr.write(f"{error}\n")
        return _NOT_RUN
    watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM), grace_s=_FINISH_S + _CLOSE_S)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # a line of our own says more
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_FINISH_S,
    )
    _Server(config, app).run([listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
