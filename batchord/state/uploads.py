"""The upload's hash: what was announced, which parts have come, how it ended. The bytes are in storage."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
from pydantic import BaseModel, ConfigDict

from batchord.contract import FileObject
from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, is_one, mapping, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

_WRITE, _ADD_PART, _END = Script("write_upload"), Script("add_part"), Script("end_upload")
_PART: Final = "part:"
_REMEMBERED_S: Final = 86_400
"""For how long after its end an upload still says how it ended."""


class UploadStatus(StrEnum):
    """Where an upload stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Upload(BaseModel):
    """A file that comes in parts, and whose it is; `created_at` has fractions of a second.

    `parts` are those that have come, with their sizes; `part_ids` are those of which the file was made, in its order.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    bytes: int
    created_at: float
    expires_at: int
    filename: str
    purpose: str
    expires_after_s: int | None = None
    status: UploadStatus = UploadStatus.PENDING
    parts: Mapping[str, int] = {}
    part_ids: tuple[str, ...] = ()
    file: FileObject | None = None


def write(upload: Upload, life_after_s: int) -> list[Call[Any]]:
    """Write a new upload; its bytes are due to be deleted that long after it has expired."""
    fields: list[Argument] = []
    for name, value in upload.model_dump(exclude_none=True, exclude={"parts", "part_ids", "file"}).items():
        fields += [name, value]
    return [
        Call(("ZADD", keys.UPLOADS, upload.expires_at + life_after_s, upload.id), nothing),
        _WRITE.call([keys.upload(upload.id)], (upload.expires_at + _REMEMBERED_S, *fields), nothing),
    ]


def read(upload_id: str) -> Call[Upload | None]:
    """Read an upload, or None where there is none."""
    return Call(("HGETALL", keys.upload(upload_id)), _upload)


def add_part(upload_id: str, part_id: str, size_bytes: int, now: float) -> Call[bool]:
    """Note a part whose bytes are in storage; False where the upload takes none any more."""
    return _ADD_PART.call([keys.upload(upload_id)], (now, _PART + part_id, size_bytes), is_one)


def complete(upload_id: str, part_ids: Sequence[str], file: FileObject) -> Call[bool]:
    """End an upload as the file that these parts made; False where it has ended otherwise, or so before."""
    fields = ("part_ids", msgspec.json.encode(part_ids), "file", file.model_dump_json())
    return _END.call([keys.upload(upload_id)], (UploadStatus.COMPLETED, *fields), is_one)


def cancel(upload_id: str) -> Call[bool]:
    """End an upload without a file; False where it has ended before."""
    return _END.call([keys.upload(upload_id)], (UploadStatus.CANCELLED,), is_one)


def due(now: float, most: int) -> Call[list[str]]:
    """Give uploads whose bytes are to be deleted now, at most so many."""
    command = ("ZRANGEBYSCORE", keys.UPLOADS, "-inf", now, "LIMIT", 0, most)
    return Call(command, lambda answer: [upload_id.decode() for upload_id in answer])


def settled(upload_ids: Sequence[str]) -> Call[None]:
    """Take uploads off the list of those whose bytes are to be deleted; there must be at least one."""
    return Call(("ZREM", keys.UPLOADS, *upload_ids), nothing)


def _upload(answer: Any) -> Upload | None:
    fields: dict[str, Any] = mapping(answer)
    if not fields:
        return None
    parts = {name.removeprefix(_PART): int(size) for name, size in fields.items() if name.startswith(_PART)}
    for name in ("part_ids", "file"):
        if name in fields:
            fields[name] = msgspec.json.decode(fields[name])
    return Upload.model_validate({**fields, "parts": parts})
