"""The file's hash, the list of files that expire, and the place in its tenant's listing. The bytes are in storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchord.contract import FileObject
from batchord.lifecycle import Status
from batchord.state import keys, listings
from batchord.state.calls import Argument, Call, Script, is_one, mapping, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

_CREATE = Script("create")


def reserve(file_id: str, until: float) -> Call[None]:
    """Say that bytes will be stored under this id: those that have no record by then are found by `expired`."""
    return Call(("ZADD", keys.FILES, "NX", until, file_id), nothing)


def write(file: FileObject, *, listed: bool = True, at: float | None = None) -> list[Call[None]]:
    """Write a file's fields, and note when it expires; the same file written twice is the same file.

    `at` is its creation with fractions of a second, for its place in the listing.
    """
    calls = [Call(("HSET", keys.file(file.id), *_fields(file)), nothing)]
    if listed:
        calls.append(listings.note(keys.tenant_files(file.tenant), file.id, file.created_at if at is None else at))
    return [*calls, note_expiry(file)]


def announce(file: FileObject) -> Call[bool]:
    """Write the fields of a file whose bytes will come; False where it has a record already, maybe its final one."""
    return _CREATE.call([keys.file(file.id)], _fields(file), is_one)


def note_expiry(file: FileObject) -> Call[None]:
    """Note when a file expires, in the place of its reservation."""
    if file.expires_at is None:
        return forget_expiry([file.id])
    return Call(("ZADD", keys.FILES, file.expires_at, file.id), nothing)


def postpone_expiry(file: FileObject, until: float) -> Call[None]:
    """Have a file whose time is over looked at again later."""
    return Call(("ZADD", keys.FILES, until, file.id), nothing)


def end(file: FileObject, now: float) -> list[Call[None]]:
    """Let a file's time be over, and take it off its tenant's listing; its record and bytes stay for now."""
    over = int(now)
    return [
        Call(("HSET", keys.file(file.id), "expires_at", over), nothing),
        listings.drop(keys.tenant_files(file.tenant), [file.id]),
        postpone_expiry(file, over),
    ]


def forget_expiry(file_ids: Sequence[str]) -> Call[None]:
    """Take ids off the list of what expires; there must be at least one."""
    return Call(("ZREM", keys.FILES, *file_ids), nothing)


def read(file_id: str) -> Call[FileObject | None]:
    """Read a file, or None where there is none."""
    return Call(("HGETALL", keys.file(file_id)), _object)


def delete(*files: FileObject) -> list[Call[None]]:
    """Forget files. What is cut short leaves at most a listed id without a file, which whoever lists drops."""
    calls = [Call(("DEL", keys.file(file.id)), nothing) for file in files]
    calls += [listings.drop(keys.tenant_files(file.tenant), [file.id]) for file in files]
    return [*calls, *(forget_expiry([file.id]) for file in files)]


def expired(now: float, most: int) -> Call[list[str]]:
    """Give files whose time is over, and reservations that were never used, at most so many."""
    command = ("ZRANGEBYSCORE", keys.FILES, "-inf", now, "LIMIT", 0, most)
    return Call(command, lambda answer: [file_id.decode() for file_id in answer])


def input_of(batch_id: str) -> Call[str | None]:
    """Give the file that a batch reads; None where it has ended."""
    return Call(("HMGET", keys.batch(batch_id), "status", "input_file_id"), _input)


def _fields(file: FileObject) -> list[Argument]:
    return [word for pair in file.model_dump(exclude_none=True).items() for word in pair]


def _object(answer: Any) -> FileObject | None:
    fields = mapping(answer)
    return FileObject.model_validate(fields) if fields else None


def _input(answer: Any) -> str | None:
    status, file_id = answer
    return None if status is None or Status(status.decode()).is_terminal else file_id.decode()
