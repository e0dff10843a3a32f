"""Remembers what the lines of a file say, in constant memory. Not for anything that must outlive one plan."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from batchord.errors import StorageUnavailableError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

P = TypeVar("P", int, bytes)

_CACHE_KIB: Final = 2048
_DIGEST_BYTES: Final = 16  # at a million words, two different ones meet with a chance of 1 in 10^26

_SETUP: Final = f"""
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA cache_size = -{_CACHE_KIB};
    CREATE TABLE seen (digest BLOB PRIMARY KEY, place NOT NULL) WITHOUT ROWID;
    BEGIN;
"""
_INSERT: Final = "INSERT OR IGNORE INTO seen VALUES (?, ?)"
_SELECT: Final = "SELECT place FROM seen WHERE digest = ?"


class Seen(Generic[P]):
    """The words so far with the place of each; a context manager, used by one caller at a time, on any thread.

    They are in SQLite's private temporary database: a file without a name, which the system frees even after a kill.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(_SETUP)

    def first(self, word: bytes, place: P) -> P | None:
        """Give the earlier place of a word; None, and it is remembered as of this place, if there is none.

        Raises:
            StorageUnavailableError: there is no room for temporary files.
        """
        digest = blake2b(word, digest_size=_DIGEST_BYTES).digest()
        try:
            if self._database.execute(_INSERT, (digest, place)).rowcount:
                return None
            found: tuple[P] = self._database.execute(_SELECT, (digest,)).fetchone()
        except sqlite3.OperationalError as error:
            raise StorageUnavailableError(
                f"What the file's lines say cannot be kept: {error}. Set TMPDIR to a folder with 150 bytes free a line."
            ) from error
        return found[0]

    def close(self) -> None:
        """Forget them all and free the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
