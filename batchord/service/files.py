"""A tenant's files: stored, found, listed, deleted. Their bytes are read by `content`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from batchord.errors import ConflictError, NotFoundError
from batchord.service import paging, purposes
from batchord.service.incoming import receiving
from batchord.service.paging import Page
from batchord.state import batches, files, keys, listings
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.contract import FileObject
    from batchord.service.backend import Backend
    from batchord.state.connection import State
    from batchord.storage import Blobs

_AT_ONCE: Final = 500
_POSTPONED_S: Final = 60
"""After how long it is looked again whether a file that is deleted is still a running batch's input."""


async def store(  # noqa: PLR0913 (what a file is)
    backend: Backend,
    tenant: str,
    *,
    filename: str,
    purpose: str,
    expires_after_s: int | None,
    content: AsyncIterator[bytes],
) -> FileObject:
    """Store a file whole, or nothing of it.

    Raises:
        InvalidRequestError: the contract does not allow such a file.
    """
    purposes.check(purpose, filename)
    async with receiving(backend) as incoming:
        await incoming.take(content, purposes.most_bytes(backend.settings, purpose))
        return await incoming.keep(tenant, filename=filename, purpose=purpose, expires_after_s=expires_after_s)


async def find(backend: Backend, tenant: str, file_id: str) -> FileObject:
    """Give a file.

    Raises:
        NotFoundError: the tenant has none of this id, or not any more.
    """
    is_one = file_id.startswith("file-")  # another kind's id would name that kind's hash
    file = await backend.state.run(files.read(file_id)) if is_one else None
    if file is None or not _is_there(file, time.time()) or file.tenant != tenant:
        raise not_found(file_id)
    return file


def not_found(file_id: str) -> NotFoundError:
    """Give the error for a file that is not there, in OpenAI's words."""
    return NotFoundError(f"No such File object: {file_id:.200}", "id")


async def listing(  # noqa: PLR0913 (what a client may say of a page)
    backend: Backend, tenant: str, *, purpose: str | None, after: str | None, most: int, newest_first: bool
) -> Page[FileObject]:
    """Give at most so many of a tenant's files that follow `after`, by creation.

    Raises:
        NotFoundError: `after` is no file of the tenant.
    """
    found: list[FileObject] = []
    key, now = keys.tenant_files(tenant), time.time()
    walk = paging.chunks(backend.state, key, after=after, most=min(most + 1, _AT_ONCE), newest_first=newest_first)
    async for ids in walk:
        if ids is None:
            raise not_found(after or "")
        read = await _read_listed(backend.state, key, ids)
        found += [file for file in read if _is_there(file, now) and purpose in {None, file.purpose}]
        if len(found) > most:
            return Page(found[:most], has_more=True)
    return Page(found, has_more=False)


async def remove(backend: Backend, tenant: str, file_id: str) -> None:
    """Delete a file: nobody finds it from now on. The input of a batch keeps its bytes until that batch has ended.

    Raises:
        NotFoundError: the tenant has none of this id.
        ConflictError: a batch that has not ended writes it.
    """
    file = await find(backend, tenant, file_id)
    if file.status == "uploaded":
        raise ConflictError(f"Cannot delete file '{file_id}' while batch '{file.batch_id}' writes it.")
    if file_id in await _read_by_batches(backend.state):
        await backend.state.run_all(files.end(file, time.time()))
    else:
        await _delete(backend.state, backend.blobs, [file])


async def expire_files(state: State, blobs: Blobs, now: float) -> None:
    """Delete the files whose time is over and that no batch reads, and bytes that came and became no file."""
    while ids := await state.run(files.expired(now, _AT_ONCE)):
        needed = await _read_by_batches(state)
        records = await state.run_all([files.read(file_id) for file_id in ids])
        found = [file for file in records if file is not None]
        abandoned = [file_id for file_id, file in zip(ids, records, strict=True) if file is None]
        over = [file for file in found if not _is_there(file, now)]
        await _delete(state, blobs, [file for file in over if file.id not in needed])
        await blobs.delete([paths.file(file_id) for file_id in abandoned])
        calls = [files.note_expiry(file) for file in found if _is_there(file, now)]
        calls += [files.postpone_expiry(file, now + _POSTPONED_S) for file in over if file.id in needed]
        await state.run_all(calls + ([files.forget_expiry(abandoned)] if abandoned else []))


def _is_there(file: FileObject, now: float) -> bool:
    return file.expires_at is None or file.expires_at > now


async def _read_listed(state: State, key: str, ids: list[str]) -> list[FileObject]:
    """Read listed files; ids that no file has any more are taken off the list."""
    records = await state.run_all([files.read(file_id) for file_id in ids])
    if gone := [file_id for file_id, file in zip(ids, records, strict=True) if file is None]:
        await state.run(listings.drop(key, gone))
    return [file for file in records if file is not None]


async def _read_by_batches(state: State) -> set[str | None]:
    """Give the inputs of the batches that have not ended."""
    active = await state.run(batches.active())
    return set(await state.run_all([files.input_of(batch_id) for batch_id, _ in active]))


async def _delete(state: State, blobs: Blobs, gone: list[FileObject]) -> None:
    """Delete bytes, then records: what is cut short can be deleted again."""
    if gone:
        await blobs.delete([paths.file(file.id) for file in gone])
        await state.run_all(files.delete(*gone))
