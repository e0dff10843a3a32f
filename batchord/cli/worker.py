"""`batchord worker` and `batchord health`: one process of the fleet, and whether it is well."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import click

from batchord.cli.exits import NOT_RUN
from batchord.cli.server import server_environment, worker_argv
from batchord.settings import load_routes, read_settings, require_keys
from batchord.state import leases
from batchord.state.connection import BlockingState


@click.command()
@click.option(
    "--providers", type=click.Path(path_type=Path), help="The providers file, in place of BATCHORD_PROVIDERS."
)
@click.option("--log-level", help="DEBUG, INFO, WARNING or ERROR.  [default: INFO]")
def worker(providers: Path | None, log_level: str | None) -> None:
    """Run one worker of the fleet until SIGTERM, which drains it: requests in flight finish, the rest goes back.

    It takes lines from the Redis of BATCHORD_REDIS_URL and keeps bytes in BATCHORD_STORAGE_URL, which all workers and
    producers must share. Start as many as you like, on as many machines; a provider's limit is shared among them.
    """
    given = {"providers": providers and providers.resolve(), "log_level": log_level}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    require_keys(load_routes(settings, os.environ), os.environ)
    environment = server_environment(settings)
    sys.stdout.flush()
    argv = worker_argv()
    os.execve(argv[0], argv, environment)  # noqa: S606 (the project's own module, by the interpreter that runs this)


@click.command()
@click.option("--worker", "wants_worker", is_flag=True, help="Ask for a living worker on this host too.")
def health(*, wants_worker: bool) -> None:
    """Exit with 0 if Redis answers (and a worker of this host lives), for container health checks."""
    state = BlockingState(read_settings().redis_url)
    living = state.run(leases.alive(time.time()))
    if wants_worker and not any(name.startswith(f"{socket.gethostname()}-") for name in living):
        click.echo("No worker of this host is alive.", err=True)
        sys.exit(NOT_RUN)
    click.echo(f"Redis answers; {len(living)} worker(s) alive.")
