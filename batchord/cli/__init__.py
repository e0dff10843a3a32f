"""The command line: `batchord`. Each command is a module; this one gathers them and turns errors into exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Final

import click

from batchord.cli import api, check, clients, keys, run, serve, worker
from batchord.cli.exits import NOT_RUN, REFUSED
from batchord.errors import BatchordError, InputRefusedError, StateUnavailableError

_WHICH_REDIS: Final = "BATCHORD_REDIS_URL says which Redis to ask; `batchord serve` names its own when it starts."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("batchord"), prog_name="batchord")
def commands() -> None:
    """Run LLM requests by the batch, against any OpenAI-compatible endpoint.

    \b
    One command, no services:
      batchord run in.jsonl -o out.jsonl
    The server, for the stock OpenAI SDK:
      batchord serve
    Against a running fleet (BATCHORD_REDIS_URL, BATCHORD_STORAGE_URL):
      batchord worker
      batchord submit in.jsonl --wait

    Each line of the input is a request in the form of OpenAI's Batch API:
    {"custom_id": "a-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "...", "messages": [...]}}
    """  # noqa: D301 (click's mark of a paragraph to keep as it is)


commands.add_command(run.run)
commands.add_command(check.check)
commands.add_command(serve.serve)
commands.add_command(api.api)
commands.add_command(worker.worker)
commands.add_command(worker.health)
commands.add_command(keys.keys)
commands.add_command(clients.submit)
commands.add_command(clients.status)
commands.add_command(clients.results)
commands.add_command(clients.cancel)


def main() -> None:
    """Run the command line and exit: 0, 1 and 2 as the command says, 3 where it could not be carried out."""
    try:
        commands()
    except InputRefusedError as error:
        click.echo("\n".join(error.problems), err=True)
        sys.exit(REFUSED)
    except StateUnavailableError as error:
        click.echo(f"Error: {error} {_WHICH_REDIS}", err=True)
        sys.exit(NOT_RUN)
    except BatchordError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(NOT_RUN)
