"""The files that `batchord run` leaves to its user: checked before anything is sent, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from batchord.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ROOM_FACTOR: Final = 3
_ROOM_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a run reads and writes."""

    input: Path
    output: Path
    errors: Path
    data_dir: Path


@dataclass(frozen=True, slots=True)
class Counts:
    """Lines written to the output file, and to the errors file."""

    succeeded: int
    failed: int


def check_apart(where: Paths) -> None:
    """See to it that no file of a run is another one of it, which would be overwritten.

    Raises:
        ConfigError: two are the same, or one is in the data directory.
    """
    files = [where.input.resolve(), where.output.resolve(), where.errors.resolve()]
    same = any(one.exists() and where.input.samefile(one) for one in files[1:])
    if len(set(files)) < len(files) or same:
        raise ConfigError(f"The input, the output and the errors file ({where.errors}) must be three different files.")
    if any(file.is_relative_to(where.data_dir.resolve()) for file in files):
        raise ConfigError(
            f"The data directory {where.data_dir} is the run's own; keep the input and the outputs elsewhere."
        )


def check_writable(path: Path) -> None:
    """See to it that a file can be written here.

    Raises:
        ConfigError: it cannot; the message says why.
    """
    if path.is_dir():
        raise ConfigError(f"The output {path} is a directory; name a file.")
    if not path.parent.is_dir():
        raise ConfigError(f"The directory {path.parent} of the output {path.name} does not exist; create it first.")
    probe = _part(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"The output {path} cannot be written: {error.strerror}.") from None


def check_room(data_dir: Path, input_path: Path) -> None:
    """See to it that the disk has room for a copy of the input, its shards, and answers of about its size.

    Raises:
        ConfigError: it has not, or the directory cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The data directory {data_dir} cannot be made: {error.strerror}.") from None
    needed_bytes = _ROOM_FACTOR * input_path.stat().st_size + _ROOM_BYTES
    free_bytes = shutil.disk_usage(data_dir).free
    if free_bytes < needed_bytes:
        raise ConfigError(
            f"The disk of {data_dir} has {free_bytes / 1e6:,.0f} MB free, but this run needs about "
            f"{needed_bytes / 1e6:,.0f} MB; free some, or name a --data-dir on another disk."
        )


def write_output(path: Path, content: Iterable[bytes]) -> int:
    """Write an output file and give its number of lines; a crash leaves the old file or the new one, never a part.

    Raises:
        ConfigError: it cannot be written; the results are still in the data directory.
    """
    part = _part(path)
    try:
        with part.open("wb") as file:
            lines = sum(_written(file, chunk) for chunk in content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"The output {path} cannot be written: {error}. Nothing is lost: mend it and run again."
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()
    return lines


def _written(file: BinaryIO, chunk: bytes) -> int:
    file.write(chunk)
    return chunk.count(b"\n")


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
