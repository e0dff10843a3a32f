"""A file on its way in: its bytes go to storage as they come, and it is a file only once all is known to be well."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from batchord.contract import FileObject, new_file_id
from batchord.errors import InvalidRequestError, UnavailableError
from batchord.service import purposes
from batchord.state import files
from batchord.storage import paths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.service.backend import Backend

RESERVED_S: Final = 86_400
"""For how long bytes may be on their way; then the sweep deletes those that became no file."""


class IncomingFile:
    """The bytes of a file that is none yet. Made by `receiving`."""

    def __init__(self, backend: Backend) -> None:
        self.id = new_file_id()
        self._backend = backend
        self._size_bytes: int | None = None
        self._file: FileObject | None = None

    @property
    def has_come(self) -> bool:
        """Whether `take` has been given its bytes."""
        return self._size_bytes is not None

    async def take(self, content: AsyncIterator[bytes], most_bytes: int) -> None:
        """Store the bytes as they come.

        Raises:
            InvalidRequestError: they are more than so many.
        """
        await self._backend.state.run(files.reserve(self.id, time.time() + RESERVED_S))
        counted = Counted(content, most_bytes)
        await self._backend.blobs.put(paths.file(self.id), counted.chunks())
        self._size_bytes = counted.size_bytes

    async def keep(self, tenant: str, *, filename: str, purpose: str, expires_after_s: int | None) -> FileObject:
        """Make it a file.

        Raises:
            InvalidRequestError: the contract does not allow such a file.
        """
        purposes.check(purpose, filename)
        size_bytes, now = self._size_bytes or 0, time.time()
        if size_bytes > purposes.most_bytes(self._backend.settings, purpose):
            raise too_large()
        file = self._file = FileObject(
            id=self.id,
            tenant=tenant,
            bytes=size_bytes,
            created_at=int(now),
            filename=filename,
            purpose=purpose,
            expires_at=purposes.expires_at(int(now), purpose, expires_after_s),
        )
        await self._backend.state.run_all(files.write(file, at=now))
        return file

    async def discard(self) -> None:
        """Leave nothing behind; what cannot be deleted now, the sweep deletes when the reservation is over.

        The record goes first, which may have been written though its writing failed: a file without bytes is worse
        than one that its client does not know of.
        """
        with suppress(UnavailableError):
            if self._file is not None:
                await self._backend.state.run_all(files.delete(self._file))
            await self._backend.blobs.delete([paths.file(self.id)])
            await self._backend.state.run(files.forget_expiry([self.id]))


@asynccontextmanager
async def receiving(backend: Backend) -> AsyncIterator[IncomingFile]:
    """Give a file to fill; where anything fails before it is kept, nothing remains."""
    incoming = IncomingFile(backend)
    try:
        yield incoming
    except BaseException:
        await incoming.discard()
        raise


class Counted:
    """Bytes on their way to storage, counted, and never more than so many."""

    def __init__(self, content: AsyncIterator[bytes], most_bytes: int) -> None:
        self._content = content
        self._most_bytes = most_bytes
        self.size_bytes = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes.

        Raises:
            InvalidRequestError: they are too many.
        """
        async for chunk in self._content:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._most_bytes:
                raise too_large()
            yield chunk


def too_large() -> InvalidRequestError:
    """Give the error for bytes past a limit, in OpenAI's words."""
    return InvalidRequestError("File is too large.")
