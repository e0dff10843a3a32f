"""Dollars on the command line: how a budget is given, and how a cost is shown."""

from __future__ import annotations

from typing import Final

import click

from batchord.prices import NANOS_PER_DOLLAR

DOLLARS: Final = click.FloatRange(min=0, min_open=True)


def dollars(nanos: int) -> str:
    """Give nano-dollars as people read them."""
    amount = nanos / NANOS_PER_DOLLAR
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4g}"
