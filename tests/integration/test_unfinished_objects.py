"""What a writer leaves that is killed in the middle of an object goes with that object, or with its folder."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from batchord.storage import Blobs

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 60
DEATH_IN_THE_MIDDLE = """\
import asyncio, os, signal, sys
from batchord.storage import Blobs

async def content():
    for _ in range(6):
        yield b"x" * 1024 * 1024
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(Blobs(sys.argv[1]).put(sys.argv[2], content()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a storage"


@pytest.fixture
def blobs(folder: Path) -> Blobs:
    return Blobs(folder.as_uri())


def die_writing(folder: Path, path: str) -> None:
    command = [sys.executable, "-c", DEATH_IN_THE_MIDDLE, folder.as_uri(), path]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode < 0


def stored(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


async def test_it_goes_when_the_object_is_deleted_which_was_never_whole(folder: Path, blobs: Blobs) -> None:
    for _ in range(2):
        die_writing(folder, "files/one")
    await blobs.put("files/one-more", b"whole")
    assert len(stored(folder)) == 4
    await blobs.delete(["files/one", "files/none"])
    assert stored(folder) == {"files", "files/one-more"}


async def test_it_goes_alone_where_the_object_is_whole(folder: Path, blobs: Blobs) -> None:
    die_writing(folder, "files/one")
    await blobs.put("files/one", b"whole")
    await blobs.delete_unfinished(["files/one"])
    assert stored(folder) == {"files", "files/one"}
    assert await blobs.get("files/one") == b"whole"


async def test_it_goes_with_its_folder(folder: Path, blobs: Blobs) -> None:
    die_writing(folder, "batches/b1/0/output/local/0.jsonl")
    await blobs.put("batches/b1/0/output/local/1.jsonl", b"whole")
    await blobs.put("batches/b2/0/output/local/1.jsonl", b"whole")
    await blobs.delete_folder("batches/b1/0/")
    assert {path for path in stored(folder) if "b1" in path} == set()
    assert await blobs.get("batches/b2/0/output/local/1.jsonl") == b"whole"
