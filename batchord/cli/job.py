"""What `batchord run` notes in its data directory, so that the same command goes on where an earlier one ended."""

from __future__ import annotations

from hashlib import file_digest
from typing import TYPE_CHECKING, Self

import msgspec

from batchord.cli.outputs import write_output
from batchord.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Job(msgspec.Struct, frozen=True):
    """One run: its batches, each but the first of what the one before left unanswered, and what they are for."""

    batch_ids: tuple[str, ...]
    input_digest: str
    output: str

    def also(self, batch_id: str) -> Job:
        """Give the same run with one more batch."""
        return msgspec.structs.replace(self, batch_ids=(*self.batch_ids, batch_id))

    def instead(self, batch_id: str) -> Job:
        """Give the same run with another batch in place of the last one, which was refused."""
        return msgspec.structs.replace(self, batch_ids=(*self.batch_ids[:-1], batch_id))

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """Read the note of the data directory; None where there is none.

        Raises:
            ConfigError: there is one, but it is broken.
        """
        path = _path(data_dir)
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} is broken ({error}); choose another --data-dir, or delete this one.") from None

    def write(self, data_dir: Path) -> None:
        """Write the note, whole or not at all."""
        write_output(_path(data_dir), [msgspec.json.encode(self)])


def digest(path: Path) -> str:
    """Give the digest of a file's content."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _path(data_dir: Path) -> Path:
    return data_dir / "run.json"
