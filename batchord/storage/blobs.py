"""Objects over obstore: a local folder, S3, GCS or Azure, by URL. Objects appear whole or not at all.

`Blobs` is for the fleet and the API; `BlockingBlobs` has the little that producers need without an event loop.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from batchord.errors import BlobNotFoundError, ConfigError, StorageUnavailableError
from batchord.storage.unfinished import delete_unfinished, delete_unfinished_in, folder_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
    from pathlib import Path

    from obstore import GetOptions
    from obstore.store import ObjectStore

CHUNK_BYTES: Final = 1024 * 1024
_RETRY: Final[dict[str, Any]] = {"retry_timeout": timedelta(seconds=20)}
"""A client that waits for an answer is soon told that the storage is away; a step of the fleet tries again itself."""
_PART_BYTES: Final = 5 * 1024 * 1024
_SCHEMES: Final = frozenset({"file", "s3", "gs", "az", "abfs", "abfss"})
_MAY_BE_SECRET: Final = re.compile(r"(?<=://)[^/\s]*@|\?[^\s\"]*")
"""A URL's user and password, and its query, which may be a signature."""


def _open_store(url: str) -> ObjectStore:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigError(
            "BATCHORD_STORAGE_URL is not a storage's URL; "
            "write for example file:///srv/batchord, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
        )
    options = {"mkdir": True, "automatic_cleanup": True} if scheme == "file" else {"retry_config": _RETRY}
    try:
        return from_url(url, **options)
    except (BaseError, OSError, ValueError) as error:
        raise ConfigError(f"BATCHORD_STORAGE_URL cannot be opened as {scheme} storage: {_reason(error)}") from error


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BlobNotFoundError(f"The storage has no object {path}.") from error
    except (BaseError, OSError) as error:
        raise StorageUnavailableError(f"The storage failed at {path}: {_reason(error)}") from error


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """Translate for a write, to which only the bucket can be missing."""
    with _translated(path):
        try:
            yield
        except FileNotFoundError as error:
            raise StorageUnavailableError(f"The storage cannot take {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return _MAY_BE_SECRET.sub("", str(error).partition("\n")[0])


class Blobs:
    """Objects for asyncio programs. Every method may raise `StorageUnavailableError`."""

    def __init__(self, storage_url: str) -> None:
        self._store = _open_store(storage_url)
        self._folder = folder_of(storage_url)

    async def put(self, path: str, content: bytes | AsyncIterator[bytes]) -> None:
        """Write an object, in place of any earlier one; if `content` raises, nothing is written."""
        with _writing(path):
            await obstore.put_async(self._store, path, content, chunk_size=_PART_BYTES, max_concurrency=1)

    async def get(self, path: str) -> bytes:
        """Read a whole object.

        Raises:
            BlobNotFoundError: there is none.
        """
        with _translated(path):
            return bytes(await (await obstore.get_async(self._store, path)).bytes_async())

    async def size(self, path: str) -> int:
        """Give the size of an object in bytes.

        Raises:
            BlobNotFoundError: there is none.
        """
        with _translated(path):
            return (await obstore.head_async(self._store, path))["size"]

    async def stream(
        self, path: str, chunk_bytes: int = CHUNK_BYTES, span: tuple[int, int] | None = None
    ) -> AsyncGenerator[bytes]:
        """Read an object in chunks, or of it only the bytes from one offset up to, not including, another.

        Raises:
            BlobNotFoundError: there is none.
        """
        options: GetOptions = {} if span is None else {"range": span}
        with _translated(path):
            found = await obstore.get_async(self._store, path, options=options)
            async for chunk in found.stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        try:
            await self._delete(paths)
        except BlobNotFoundError:  # some storages say so of the first one that is not there, and stop
            for path in paths:
                with suppress(BlobNotFoundError):
                    await self._delete([path])
        await self.delete_unfinished(paths)

    async def delete_unfinished(self, paths: Sequence[str]) -> None:
        """Delete what writers that were killed left of objects, and none of what is whole."""
        if self._folder is not None:
            with _translated(paths[0] if paths else ""):
                await asyncio.to_thread(delete_unfinished, self._folder, paths)

    async def _delete(self, paths: Sequence[str]) -> None:
        with _translated(paths[0] if paths else ""):
            await obstore.delete_async(self._store, paths)

    async def delete_folder(self, prefix: str, *, spare_unfinished: bool = False) -> None:
        """Delete every object whose path begins with `prefix`, which ends with a slash.

        What is being written there fails, unless it is spared, and with it what killed writers left.
        """
        with _translated(prefix):
            async for entries in obstore.list(self._store, prefix=prefix):
                await self.delete([entry["path"] for entry in entries])
            if self._folder is not None and not spare_unfinished:
                await asyncio.to_thread(delete_unfinished_in, self._folder, prefix)

    async def probe(self) -> None:
        """Ask the storage for something small, to see whether it answers."""
        with _writing("its root"):
            await obstore.list_with_delimiter_async(self._store, prefix="probe")


class BlockingBlobs:
    """Objects for programs without an event loop."""

    def __init__(self, storage_url: str) -> None:
        self._store = _open_store(storage_url)

    def put(self, path: str, content: Iterable[bytes] | Path) -> int:
        """Write an object and give its size in bytes; if `content` raises, nothing is written."""
        with _writing(path):
            obstore.put(self._store, path, content, chunk_size=_PART_BYTES, max_concurrency=1)
            return obstore.head(self._store, path)["size"]

    def stream(self, path: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Read an object in chunks.

        Raises:
            BlobNotFoundError: there is none.
        """
        with _translated(path):
            yield from map(bytes, obstore.get(self._store, path).stream(min_chunk_size=chunk_bytes))
