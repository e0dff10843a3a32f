"""A batch that has ended and is retried, inside a test: asking for it, and what its files must be afterwards."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from batchord.contract import DEFAULT_TENANT, produced_file_id
from batchord.service import retry
from batchord.service.backend import Backend
from batchord.state import keys
from tests.integration.steps import BATCH, Result, Site, mixed_lines
from tests.integration.steps_worker import READS, Died

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


FAILED = ["bad-1", "broken-3"]
SUCCEEDED = ["ok-0", "large-2", "ok-4", "ok-5"]
ALL = [each["custom_id"] for each in mixed_lines()]


@asynccontextmanager
async def backend_of(site: Site) -> AsyncIterator[Backend]:
    async with Backend(site.settings) as backend:
        yield backend


class Writes:
    """Lets a backend die after its write of a number; everything of it fails from then on.

    `meanwhile` happens after each of its writes.
    """

    def __init__(self, backend: Backend, number: int, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self.made = 0
        self._number = number
        self._meanwhile = meanwhile
        self._watch(backend.state._wire, "send")
        self._watch(backend.blobs, "put")
        self._watch(backend, "ask")

    def _watch(self, owner: object, name: str) -> None:
        original = getattr(owner, name)

        async def watched(*args: Any) -> Any:
            if self.made >= self._number:
                raise Died
            answer = await original(*args)
            if name != "send" or args[0][0][0] not in READS:
                self.made += 1
                await self._meanwhile()
            if self.made >= self._number:
                raise Died
            return answer

        setattr(owner, name, watched)


async def retry_all(site: Site) -> None:
    async with backend_of(site) as backend:
        await retry.retry(backend, DEFAULT_TENANT, BATCH)


async def retry_some(site: Site, **named: Any) -> None:
    async with backend_of(site) as backend:
        given = {"custom_ids": None, "request_ids": None} | named
        await retry.retry_requests(backend, DEFAULT_TENANT, BATCH, **given)


async def ended(site: Site) -> Result:
    """Drive the first round to its end, and mend the upstream."""
    await site.drive()
    site.upstream.healed = True
    site.upstream.calls.clear()
    return site.result()


def stored(site: Site) -> set[str]:
    """Give the ids of the files in storage, but for the input."""
    folder = site.settings.data_dir / "storage" / "files"
    return {path.name for path in folder.iterdir()} - {site.record().batch.input_file_id}


def assert_files_are_those_of(site: Site, round_: int) -> None:
    """Check that storage and Redis have the files of a round, and of no other."""
    ids = {produced_file_id(BATCH, part, round_) for part in ("output", "errors", "attempts")}
    batch = site.record().batch
    assert {batch.output_file_id, batch.error_file_id} - {None} <= stored(site) <= ids
    records = set(site.redis.scan_iter("batchord:{file-*")) - {keys.file(batch.input_file_id)}
    assert records == {keys.file(file_id) for file_id in stored(site)}
    for file_id in stored(site):
        status, size_bytes = site.redis.hmget(keys.file(file_id), "status", "bytes")
        path = site.settings.data_dir / "storage" / "files" / file_id
        assert (status, int(size_bytes)) == ("processed", path.stat().st_size)
    listed = {batch.output_file_id, batch.error_file_id, batch.input_file_id} - {None}
    assert set(site.redis.zrange(keys.tenant_files(DEFAULT_TENANT), 0, -1)) <= listed
