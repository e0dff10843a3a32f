"""What a writer that was killed leaves in a storage that is a folder: half an object, under a name of its own.

The store itself neither lists nor deletes it. Not for other storages: they have none, or let it go by themselves.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

_STAGED: Final = re.compile(r".+#\d+")
"""The store writes `object` as `object#1`, or `#2` where somebody else is at it, and renames it when it is whole."""


def folder_of(storage_url: str) -> Path | None:
    """Give the folder that a storage is; None for one that is none."""
    url = urlsplit(storage_url)
    return Path(unquote(url.path)) if url.scheme == "file" else None


def delete_unfinished(folder: Path, paths: Sequence[str]) -> None:
    """Delete what killed writers left of these objects."""
    for path in paths:
        for number in count(1):
            try:
                (folder / f"{path}#{number}").unlink()
            except (FileNotFoundError, NotADirectoryError):
                break


def delete_unfinished_in(folder: Path, prefix: str) -> None:
    """Delete what killed writers left of any object whose path begins with `prefix`, which ends with a slash."""
    for parent, _, names in os.walk(folder / prefix):
        left = [Path(parent, name) for name in names if _STAGED.fullmatch(name)]
        for path in left:
            path.unlink(missing_ok=True)
        if left:
            _remove_empty(Path(parent), folder)


def _remove_empty(emptied: Path, folder: Path) -> None:
    """Remove a folder, and those above it up to `folder`, as far as nothing is in them."""
    with suppress(OSError):
        while emptied != folder:
            emptied.rmdir()
            emptied = emptied.parent
