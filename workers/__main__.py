"""One worker process of the fleet, as `batchord worker` and `batchord run` start it: `python -m workers`."""

from __future__ import annotations

import logging
import os
import signal
import sys

from batchord.errors import BatchordError
from batchord.processes import watch_lifeline
from batchord.settings import read_settings
from workers.celery_app import create_celery

_CLOSE_S = 30
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def main(arguments: list[str]) -> int:
    """Run a worker until SIGTERM; `arguments` go to Celery's worker command."""
    logging.basicConfig(
        level=os.environ.get("BATCHORD_LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        settings = read_settings()
        app = create_celery(settings)
    except BatchordError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM), grace_s=settings.drain_timeout_s + _CLOSE_S)
    app.worker_main(["worker", *_QUIET, "--hostname", f"batchord-{os.getpid()}@%h", *arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
