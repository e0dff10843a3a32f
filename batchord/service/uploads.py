"""Uploads: a large file in parts, that may come at once and in any order. Every step is safe to repeat."""

from __future__ import annotations

import time
from contextlib import suppress
from hashlib import md5
from typing import TYPE_CHECKING, Final, NamedTuple

from batchord.contract import FileObject, assembled_file_id, new_part_id, new_upload_id
from batchord.errors import BlobNotFoundError, GoneError, InvalidRequestError, NotFoundError, UnavailableError
from batchord.service import purposes
from batchord.service.incoming import RESERVED_S, Counted, too_large
from batchord.state import files, uploads
from batchord.state.uploads import Upload, UploadStatus
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from batchord.service.backend import Backend
    from batchord.state.connection import State
    from batchord.storage import Blobs

_GRACE_S: Final = 600
"""How long an expired upload keeps its bytes, for what began in time."""
_AT_ONCE: Final = 100


class Part(NamedTuple):
    """A part that has come."""

    id: str
    upload_id: str
    created_at: int


async def create(  # noqa: PLR0913 (what an upload is)
    backend: Backend,
    tenant: str,
    *,
    size_bytes: int,
    filename: str,
    purpose: str,
    expires_after_s: int | None,
) -> Upload:
    """Announce a file of that many bytes.

    Raises:
        InvalidRequestError: the contract does not allow such a file.
    """
    purposes.check(purpose, filename)
    if size_bytes > backend.settings.max_upload_bytes:
        raise too_large()
    now = time.time()
    upload = Upload(
        id=new_upload_id(),
        tenant=tenant,
        bytes=size_bytes,
        created_at=now,
        expires_at=int(now) + backend.settings.upload_life_s,
        filename=filename,
        purpose=purpose,
        expires_after_s=expires_after_s,
    )
    await backend.state.run_all(uploads.write(upload, _GRACE_S))
    return upload


async def find(backend: Backend, tenant: str, upload_id: str) -> Upload:
    """Give an upload.

    Raises:
        NotFoundError: the tenant has none of this id, or not any more.
    """
    is_one = upload_id.startswith("upload_")  # another kind's id would name that kind's hash
    upload = await backend.state.run(uploads.read(upload_id)) if is_one else None
    if upload is None or upload.tenant != tenant:
        raise NotFoundError(f"No such Upload object: {upload_id:.200}")
    return upload


async def find_pending(backend: Backend, tenant: str, upload_id: str) -> Upload:
    """Give an upload that has not ended.

    Raises:
        NotFoundError: the tenant has none of this id, or not any more.
        InvalidRequestError: it was completed or cancelled.
        GoneError: its time is over.
    """
    upload = await find(backend, tenant, upload_id)
    if upload.status is not UploadStatus.PENDING:
        raise _not_pending()
    if time.time() >= upload.expires_at:
        raise GoneError("This upload has expired.")
    return upload


async def add_part(backend: Backend, tenant: str, upload_id: str, content: AsyncIterator[bytes]) -> Part:
    """Store a part of a pending upload, whole or nothing of it.

    Raises:
        InvalidRequestError: the upload takes no parts, or the part is too large.
        GoneError: the upload's time is over.
    """
    part = Part(new_part_id(), upload_id, int(time.time()))
    path = paths.upload_part(upload_id, part.id)
    counted = Counted(content, backend.settings.max_part_bytes)
    await backend.blobs.put(path, counted.chunks())
    if not await backend.state.run(uploads.add_part(upload_id, part.id, counted.size_bytes, time.time())):
        await backend.blobs.delete([path])
        await find_pending(backend, tenant, upload_id)
        raise _not_pending()
    return part


async def complete(backend: Backend, tenant: str, upload_id: str, part_ids: Sequence[str], md5_hex: str = "") -> Upload:
    """Make the file of these parts, in this order; the same again gives the same.

    Each order of parts has a file id of its own, so that of several at once each writes its own bytes, and the one
    that ends the upload wins.

    Raises:
        InvalidRequestError: the parts do not make the file that was announced; then the upload stays pending.
        GoneError: the upload's time is over.
    """
    upload = await find(backend, tenant, upload_id)
    if upload.status is UploadStatus.COMPLETED:
        return _as_completed(upload, part_ids)
    upload = await find_pending(backend, tenant, upload_id)
    _check_parts(upload, part_ids)
    file = _file(upload, part_ids)
    await backend.state.run(files.reserve(file.id, time.time() + RESERVED_S))
    try:
        await backend.blobs.put(paths.file(file.id), _joined(backend.blobs, upload, part_ids, md5_hex))
    except BlobNotFoundError:
        await _require_ended(backend, tenant, upload_id)
    else:
        ending = uploads.complete(upload_id, part_ids, file)
        await backend.entry.send([*files.write(file, at=upload.created_at), ending])  # before its parts are deleted
    return await _settled(backend, await find(backend, tenant, upload_id), part_ids, file)


async def cancel(backend: Backend, tenant: str, upload_id: str) -> Upload:
    """End a pending upload and delete its bytes.

    Raises:
        InvalidRequestError: it was completed or cancelled.
        GoneError: its time is over.
    """
    await find_pending(backend, tenant, upload_id)
    if not await backend.state.run(uploads.cancel(upload_id)):
        raise _not_pending()
    with suppress(UnavailableError):  # it is cancelled all the same, and the sweep deletes them
        await backend.blobs.delete_folder(paths.upload(upload_id), spare_unfinished=True)  # `add_part` deletes its own
    return await find(backend, tenant, upload_id)


async def expire_uploads(state: State, blobs: Blobs, now: float) -> None:
    """Delete the parts of uploads whose time is over, however they ended: also those that came too late for that."""
    while due := await state.run(uploads.due(now, _AT_ONCE)):
        for upload_id in due:
            await blobs.delete_folder(paths.upload(upload_id))
        await state.run(uploads.settled(due))


def _not_pending() -> InvalidRequestError:
    return InvalidRequestError("Upload is not pending.")


def _check_parts(upload: Upload, part_ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for part_id in part_ids:
        if part_id not in upload.parts:
            raise InvalidRequestError(f"Part '{part_id:.200}' does not belong to this upload.", "part_ids")
        if part_id in seen:
            raise InvalidRequestError(f"Part '{part_id}' is named twice.", "part_ids")
        seen.add(part_id)
    total_bytes = sum(upload.parts[part_id] for part_id in part_ids)
    if total_bytes != upload.bytes:
        raise InvalidRequestError(
            f"The uploaded parts total {total_bytes} bytes, but the upload was created with {upload.bytes} bytes."
        )


def _file(upload: Upload, part_ids: Sequence[str]) -> FileObject:
    created_at = int(upload.created_at)
    return FileObject(
        id=assembled_file_id(upload.id, part_ids),
        tenant=upload.tenant,
        bytes=upload.bytes,
        created_at=created_at,
        filename=upload.filename,
        purpose=upload.purpose,
        expires_at=purposes.expires_at(created_at, upload.purpose, upload.expires_after_s),
    )


async def _joined(blobs: Blobs, upload: Upload, part_ids: Sequence[str], md5_hex: str) -> AsyncIterator[bytes]:
    digest = md5(usedforsecurity=False)
    for part_id in part_ids:
        async for chunk in blobs.stream(paths.upload_part(upload.id, part_id)):
            if md5_hex:
                digest.update(chunk)
            yield chunk
    if md5_hex and digest.hexdigest() != md5_hex.lower():
        raise InvalidRequestError("The MD5 checksum does not match.", "md5")


async def _require_ended(backend: Backend, tenant: str, upload_id: str) -> None:
    """See to it that parts are missing since the upload has ended meanwhile, and not since the storage lost them."""
    upload = await find(backend, tenant, upload_id)
    if upload.status is UploadStatus.PENDING:
        await find_pending(backend, tenant, upload_id)
        raise BlobNotFoundError(f"The storage has lost parts of upload {upload_id}.")


async def _settled(backend: Backend, upload: Upload, part_ids: Sequence[str], file: FileObject) -> Upload:
    """Delete what is not needed now that the upload has ended, as this file or otherwise."""
    if upload.file is None or upload.file.id != file.id:
        await backend.state.run_all(files.delete(file))
        await backend.blobs.delete([paths.file(file.id)])
    await backend.blobs.delete_folder(paths.upload(upload.id), spare_unfinished=True)  # as above
    return _as_completed(upload, part_ids)


def _as_completed(upload: Upload, part_ids: Sequence[str]) -> Upload:
    if upload.part_ids != tuple(part_ids) or upload.file is None:
        raise _not_pending()
    return upload
