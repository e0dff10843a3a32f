"""What a file may be for, and what follows from that: its name, its size, its life. Pure.

Source: section "Files" of OpenAI's API; the texts are those of the live service.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from batchord.contract import BATCH_FILE_LIFE_S
from batchord.errors import InvalidRequestError

if TYPE_CHECKING:
    from batchord.settings import Settings

PURPOSES: Final = ("fine-tune", "assistants", "batch", "user_data", "vision", "evals")

_FILENAME_CHARS: Final = 512
"""A longer name would make the header of a download too long for some that it passes through."""


def check(purpose: str, filename: str) -> None:
    """See to it that a file of this name may have this purpose; a name without any extension may have each.

    Raises:
        InvalidRequestError: it may not.
    """
    if purpose not in PURPOSES:
        raise InvalidRequestError(f"'{purpose:.200}' is not one of {list(PURPOSES)} - 'purpose'", "purpose")
    if len(filename) > _FILENAME_CHARS:
        expected = f"Expected a string with maximum length {_FILENAME_CHARS}, but got a string with length"
        message = f"Invalid 'filename': string too long. {expected} {len(filename)} instead."
        raise InvalidRequestError(message, "filename", "string_above_max_length")
    if purpose == "batch" and PurePosixPath(filename).suffix.lower() not in {"", ".jsonl"}:
        raise InvalidRequestError("Invalid file format for Batch API. Must be .jsonl")


def most_bytes(settings: Settings, purpose: str | None = None) -> int:
    """Give how large a file may be; while its purpose is not known, as large as any."""
    if purpose is None:
        return max(settings.max_batch_file_bytes, settings.max_file_bytes)
    return settings.max_batch_file_bytes if purpose == "batch" else settings.max_file_bytes


def expires_at(created_at: int, purpose: str, expires_after_s: int | None) -> int | None:
    """Give when a file expires: as its uploader says, or else after 30 days for a batch's input; others never do."""
    life_s = BATCH_FILE_LIFE_S if expires_after_s is None and purpose == "batch" else expires_after_s
    return None if life_s is None else created_at + life_s
