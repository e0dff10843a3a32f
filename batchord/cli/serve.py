"""`batchord serve`: the whole server in one command, which leaves nothing behind but its data directory."""

from __future__ import annotations

import os
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchord.cli.exits import INTERRUPTED, SUCCEEDED
from batchord.cli.local import POLL_S, LocalFleet
from batchord.cli.size import autoscale_option, chosen, workers_option
from batchord.listener import listen, url
from batchord.providers_file import load_routes
from batchord.service.keys import require_key
from batchord.settings import read_settings

if TYPE_CHECKING:
    import socket

    from batchord.cli.autoscale import Bounds


@click.command()
@click.option("--host", help="The address to serve on, in place of BATCHORD_HOST.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: 8080]")
@click.option(
    "--providers",
    type=click.Path(path_type=Path),
    help="The providers file.  [default: BATCHORD_PROVIDERS, or OPENAI_BASE_URL]",
)
@workers_option
@autoscale_option
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where all is kept.  [default: batchord-data]")
def serve(  # noqa: PLR0913, PLR0917 (the command's options)
    host: str | None,
    port: int | None,
    providers: Path | None,
    workers: int | None,
    autoscale: Bounds | None,
    data_dir: Path | None,
) -> None:
    """Serve OpenAI's Batch API from this machine: a private Valkey, workers and the API, in one command.

    Point a client at it, and change nothing else:

    \b
      OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="unused")

    Ctrl-C finishes the requests in flight and keeps the rest; started again with the same data directory, it goes on
    from there.

    One worker process holds thousands of requests in flight; more are started only while it is busy, as far as
    `--autoscale` or the cores go.

    Without API keys (BATCHORD_API_KEYS, or `batchord keys create`) it serves this machine alone.

    \b
    Exit codes: 0 ended by Ctrl-C or SIGTERM; 130 ended at once by a second one;
                3 it could not be carried out.
    """  # noqa: D301 (click's mark of a paragraph to keep as it is)
    bounds = chosen(workers, autoscale)
    given = {"host": host, "port": port, "providers": providers and providers.absolute(), "data_dir": data_dir}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
    load_routes(settings, os.environ, needs_keys=True)
    # The Valkey first: where an earlier server was killed, it waits for that one's end, which frees the port.
    with LocalFleet(settings, bounds) as fleet, listen(settings.host, settings.port) as listener:
        needs_key = require_key(fleet.settings)
        fleet.client.revive_all()
        fleet.start_workers()
        fleet.start_api(listener)
        _keep_up(fleet, listener, needs_key=needs_key)
    sys.exit(SUCCEEDED if fleet.interrupts == 1 else INTERRUPTED)


def _keep_up(fleet: LocalFleet, listener: socket.socket, *, needs_key: bool) -> None:
    """Keep every process running until the user wants an end and all have ended; say once that the server is up."""
    address, is_up = url(listener), False
    while fleet.watch(lambda text: click.echo(text, err=True)):
        if fleet.interrupts:
            listener.close()  # so that no connection waits for an API that will not come again
        elif not is_up and (is_up := _answers(address)):
            key = "..." if needs_key else "unused"
            where = f"Data and logs: {fleet.settings.data_dir}, Redis: {fleet.settings.redis_url}"
            click.echo(f'Serving: OpenAI(base_url="{address}/v1", api_key="{key}"). {where}')
        time.sleep(POLL_S)


def _answers(address: str) -> bool:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200  # noqa: PLR2004 (HTTP's own number)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
