"""`batchord worker` and `batchord health`: the part of a fleet that this machine is, and whether it is well."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchord.cli.autoscale import Autoscaler
from batchord.cli.exits import NOT_RUN
from batchord.cli.server import server_environment, worker_argv
from batchord.cli.size import autoscale_option, chosen, workers_option
from batchord.cli.supervise import supervise
from batchord.errors import StateUnavailableError
from batchord.processes import Fleet
from batchord.providers_file import load_routes
from batchord.settings import read_settings
from batchord.state import leases
from batchord.state.connection import BlockingState
from batchord.storage import BlockingBlobs

if TYPE_CHECKING:
    from batchord.cli.autoscale import Bounds


@click.command()
@click.option(
    "--providers", type=click.Path(path_type=Path), help="The providers file, in place of BATCHORD_PROVIDERS."
)
@workers_option
@autoscale_option
@click.option("--log-level", help="DEBUG, INFO, WARNING or ERROR.  [default: INFO]")
def worker(providers: Path | None, workers: int | None, autoscale: Bounds | None, log_level: str | None) -> None:
    """Run workers of the fleet until SIGTERM, which drains them: requests in flight finish, the rest goes back.

    They take lines from the Redis of BATCHORD_REDIS_URL and keep bytes in BATCHORD_STORAGE_URL, which all workers and
    producers must share. Start as many as you like, on as many machines; a provider's limit is shared among them.

    One process holds thousands of requests in flight, so that most providers keep it waiting, not busy. Where it is
    busy, another one is started, up to one a core, and drained again when it is not needed: `--autoscale` says
    otherwise how many, `--workers` fixes it. What dies is started again; with `--workers 1` there is the one process
    and nobody beside it, as containers like it.
    """
    bounds = chosen(workers, autoscale)
    given = {"providers": providers and providers.resolve(), "log_level": log_level}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    routes = load_routes(settings, os.environ, needs_keys=True)
    BlockingBlobs(settings.blobs_url)  # so that a URL which no process could open is told of here, and once
    settings = settings.model_copy(update={"fleet_size": max(settings.fleet_size, bounds.least)})
    argv, environment = worker_argv(), server_environment(settings)
    sys.stdout.flush()
    if bounds.most == 1:
        os.execve(argv[0], argv, environment)  # noqa: S606 (the project's own module, by the interpreter that runs this)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    fleet = Fleet(argv, bounds.least, env=environment)
    with closing(Autoscaler(fleet, bounds, settings.redis_url, routes.providers)) as autoscaler:
        supervise(fleet, autoscaler)


@click.command()
@click.option("--worker", "wants_worker", is_flag=True, help="Ask for a living worker on this host too.")
@click.option("--liveness", is_flag=True, help="Fail only where a restart could help: not while Redis is away.")
def health(*, wants_worker: bool, liveness: bool) -> None:
    """Exit with 0 if Redis answers (and a worker of this host lives), for container health checks."""
    state = BlockingState(read_settings().redis_url)
    try:
        living = state.run(leases.alive())
    except StateUnavailableError as error:
        if not liveness:
            raise
        click.echo(str(error), err=True)
        return
    if wants_worker and socket.gethostname() not in {name.rsplit("-", 2)[0] for name in living}:
        click.echo("No worker of this host is alive.", err=True)
        sys.exit(NOT_RUN)
    click.echo(f"Redis answers; {len(living)} worker(s) alive.")
