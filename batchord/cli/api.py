"""`batchord api`: one process of the HTTP part, for a fleet whose Redis and storage are elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from batchord.cli.server import api_argv, listening_environment, server_environment
from batchord.listener import listen, url
from batchord.settings import read_settings


@click.command()
@click.option("--host", help="The address to serve on, in place of BATCHORD_HOST.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: 8080]")
@click.option("--providers", type=click.Path(path_type=Path), help="The providers file, for the list of models.")
@click.option("--log-level", help="DEBUG, INFO, WARNING or ERROR.  [default: INFO]")
def api(host: str | None, port: int | None, providers: Path | None, log_level: str | None) -> None:
    """Serve OpenAI's Files, Uploads and Batches API until SIGTERM, which lets the requests in flight finish.

    It needs the Redis of BATCHORD_REDIS_URL and the storage of BATCHORD_STORAGE_URL, which it shares with the workers
    (`batchord worker`) that carry the batches out. `batchord serve` starts all of it in one command.

    Without API keys (BATCHORD_API_KEYS, or `batchord keys create`) it serves this machine alone.
    """
    own = {"host": host, "port": port, "log_level": log_level}
    given = {**own, "providers": providers and providers.absolute()}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    environment = server_environment(settings)
    listener = listen(settings.host, settings.port)
    listener.set_inheritable(True)
    click.echo(f"Starting the API on {url(listener)} ...", err=True)
    sys.stdout.flush()
    environment |= listening_environment(listener)
    argv = api_argv()
    os.execve(argv[0], argv, environment)  # noqa: S606 (the project's own module, by the interpreter that runs this)
