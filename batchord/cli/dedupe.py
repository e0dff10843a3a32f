"""The option of the commands that make a batch: whether equal requests are sent once. Not how that is done."""

from __future__ import annotations

from typing import Final

import click

DEDUPE: Final = click.option(
    "--dedupe/--no-dedupe",
    default=None,
    help="Send requests of the same body once, and answer all of them.  [default: those of temperature 0]",
)
