"""Completion windows, such as `24h`: how long a batch may take. Pure."""

from __future__ import annotations

import re
from typing import Final

from batchord.errors import InvalidRequestError

_UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400}
_WINDOW: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])")


def window_seconds(window: str) -> int:
    """Give a window's length in seconds.

    Raises:
        InvalidRequestError: it is not a number followed by m, h or d.
    """
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise InvalidRequestError(
            f"completion_window {window!r} is not a number of minutes, hours or days such as 30m, 24h or 7d.",
            "completion_window",
            "invalid_value",
        )
    return int(match[1]) * _UNITS_S[match[2]]
