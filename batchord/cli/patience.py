"""How long `batchord run` waits for a provider that does not answer: what `--give-up-after` takes, and its default."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from batchord.settings import Settings

_DEFAULT_S: Final = 300.0
_NEVER: Final = math.inf


class _Patience(click.ParamType[float]):
    """Seconds, or `never`."""

    name = "SECONDS|never"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = _NEVER if value == "never" else float(value)
        except ValueError:
            seconds = 0
        if not seconds > 0:
            self.fail(f"{value!r} is neither a number of seconds, such as 300, nor never", param, ctx)
        return seconds


PATIENCE: Final = _Patience()


def patience_s(given_s: float | None, settings: Settings) -> float | None:
    """Give what the option says, or else the setting, or else 5 minutes; None is to wait for ever."""
    seconds = given_s or settings.give_up_after_s or _DEFAULT_S
    return None if seconds == _NEVER else seconds
