"""The command line: `batchord`. Each command is in a module; this one finds it and turns errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from batchord.cli.exits import NOT_RUN, REFUSED
from batchord.errors import BatchordError, InputRefusedError, StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHICH_REDIS: Final = "BATCHORD_REDIS_URL says which Redis to ask; `batchord serve` names its own when it starts."


_MODULES: Final = {
    "api": "api",
    "cancel": "clients",
    "check": "check",
    "health": "worker",
    "keys": "keys",
    "providers": "providers",
    "results": "clients",
    "run": "run",
    "serve": "serve",
    "status": "clients",
    "submit": "clients",
    "worker": "worker",
}
"""Where each command is."""


class _Commands(Mapping[str, click.Command]):
    """Imports a command's module once that command is asked for, since none needs what all of them do."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


@click.group(commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchord", prog_name="batchord")
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
