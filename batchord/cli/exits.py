"""The exit codes of every command."""

from __future__ import annotations

from typing import Final

SUCCEEDED: Final = 0
"""All lines succeeded."""

SOME_FAILED: Final = 1
"""The batch has ended, with lines that did not succeed."""

REFUSED: Final = 2
"""The input was refused, or the command was called wrongly; nothing was sent."""

NOT_RUN: Final = 3
"""The command could not be carried out: a setting, the disk, Redis, or a process that keeps dying."""

INTERRUPTED: Final = 130
"""Ended by Ctrl-C or SIGTERM; what was done is kept."""
