"""One worker process of the fleet, as `batchord worker` and `batchord run` start it: `python -m workers`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from batchord.errors import BatchordError
from batchord.processes import watch_lifeline
from batchord.settings import read_settings
from workers.celery_app import create_celery
from workers.strategy import TASK_LOGGERS

_CLOSE_S = 30


def main() -> int:
    """Run a worker until SIGTERM."""
    level = (os.environ.get("BATCHORD_LOG_LEVEL") or "INFO").upper()
    logging.basicConfig(level=level, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    if level != "DEBUG":
        for name in TASK_LOGGERS:  # a third of a worker's time, and of no use to a batch
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        settings = read_settings()
        app = create_celery(settings)
    except BatchordError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM), grace_s=settings.drain_timeout_s + _CLOSE_S)
    worker = app.Worker(
        hostname=f"batchord-{os.getpid()}@{socket.gethostname()}",
        loglevel=level,
        without_gossip=True,
        without_mingle=True,  # it would wait a second for other workers' words, which nobody needs here
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
