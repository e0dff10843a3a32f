"""The file's hash and the list of files that expire. The bytes are in storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchord.contract import FileObject
from batchord.state import keys
from batchord.state.calls import Argument, Call, mapping, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence


def write(file: FileObject) -> list[Call[None]]:
    """Write a file's fields, and note when it expires; the same file written twice is the same file."""
    fields: list[Argument] = []
    for name, value in file.model_dump(exclude_none=True).items():
        fields += [name, value]
    calls = [Call(("HSET", keys.file(file.id), *fields), nothing)]
    if file.expires_at is not None:
        calls.append(Call(("ZADD", keys.FILES, file.expires_at, file.id), nothing))
    return calls


def read(file_id: str) -> Call[FileObject | None]:
    """Read a file, or None where there is none."""
    return Call(("HGETALL", keys.file(file_id)), _object)


def delete(file_ids: Sequence[str]) -> list[Call[None]]:
    """Forget files."""
    names = [keys.file(file_id) for file_id in file_ids]
    return [Call(("DEL", *names), nothing), Call(("ZREM", keys.FILES, *file_ids), nothing)]


def expired(now: float, most: int) -> Call[list[str]]:
    """Give files whose time is over, at most so many."""
    command = ("ZRANGEBYSCORE", keys.FILES, "-inf", now, "LIMIT", 0, most)
    return Call(command, lambda answer: [file_id.decode() for file_id in answer])


def _object(answer: Any) -> FileObject | None:
    fields = mapping(answer)
    return FileObject.model_validate(fields) if fields else None
