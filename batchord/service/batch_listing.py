"""A tenant's batches, newest first, filtered and by pages. Filters read the batches in bounded chunks."""

from __future__ import annotations

import math
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batchord.service.batches import not_found
from batchord.service.paging import Page, chunks
from batchord.state import batches, keys, listings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from batchord.lifecycle import Status
    from batchord.service.backend import Backend
    from batchord.state.batches import BatchRecord

_CHUNK: Final = 200
_GRACE_S: Final = 60
"""How long a listed batch may be about to be written."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which batches to list; times are epoch seconds, `search` a part of an id, name or metadata value in any case.

    Created from `created_after` on, and before `created_before`.
    """

    status: Status | None = None
    endpoint: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    search: str | None = None

    @property
    def since(self) -> float | None:
        """The first time of creation that is wanted."""
        return self.created_after

    @property
    def until(self) -> float | None:
        """The last time of creation that is wanted, with fractions."""
        return None if self.created_before is None else math.nextafter(self.created_before, -math.inf)

    def matches(self, record: BatchRecord) -> bool:
        """Whether a batch is to be listed; its time of creation is for the listing to tell."""
        batch = record.batch
        return (
            not record.removing
            and self.status in {None, batch.status}
            and self.endpoint in {None, batch.endpoint}
            and (not self.search or _holds(record, self.search.casefold()))
        )


def _holds(record: BatchRecord, wanted: str) -> bool:
    batch = record.batch
    texts = (batch.id, batch.input_file_id, batch.endpoint, batch.model or "", *(batch.metadata or {}).values())
    return any(wanted in text.casefold() for text in texts)


async def listing(  # noqa: PLR0913 (what a client may say of a page)
    backend: Backend, tenant: str, wanted: Filter, *, after: str | None, limit: int, active_first: bool = False
) -> Page[BatchRecord]:
    """Give the batches that follow `after`, newest first, or else those first that have not ended.

    Where `after` has ended since it was listed among the active ones, the page goes on among those that have ended.

    Raises:
        NotFoundError: `after` is not the tenant's.
    """
    walk = _Walk(backend, tenant, wanted, limit + 1)
    found: list[BatchRecord] = []
    async with aclosing(walk.active_first(after) if active_first else walk.newest_first(after)) as records:
        async for record in records:
            found.append(record)
            if len(found) > limit:
                break
    await walk.drop_gone()
    return Page(found[:limit], has_more=len(found) > limit)


class _Walk:
    """One way along a tenant's batches, of which at most so many are wanted."""

    def __init__(self, backend: Backend, tenant: str, wanted: Filter, most: int) -> None:
        self._state = backend.state
        self._tenant = tenant
        self._wanted = wanted
        self._chunk = most if wanted == Filter() else _CHUNK
        self._gone: list[str] = []

    async def newest_first(self, after: str | None) -> AsyncGenerator[BatchRecord]:
        """Walk along the listing."""
        since, until = self._wanted.since, self._wanted.until
        key, most = keys.tenant_batches(self._tenant), self._chunk
        async for ids in chunks(self._state, key, after=after, most=most, since=since, until=until):
            if ids is None:
                raise not_found(after or "")
            for record in await self._read(ids):
                yield record

    async def active_first(self, after: str | None) -> AsyncGenerator[BatchRecord]:
        """Walk along those that have not ended, then along all the others."""
        active = await self._active()
        shown: set[str] = set()
        if after is None or after in active:
            rest = active if after is None else active[active.index(after) + 1 :]
            async for record in self._running(rest):
                shown.add(record.batch.id)
                yield record
            after = None
        async for record in self.newest_first(after):
            if record.batch.status.is_terminal and record.batch.id not in shown:
                yield record

    async def drop_gone(self) -> None:
        """Take off the listing what is there no more. Not on the way: the walk would lose its place."""
        if not self._gone:
            return
        times = await self._state.run(batches.listed_at(self._tenant, self._gone))
        latest = time.time() - _GRACE_S
        if gone := [each for each, at in zip(self._gone, times, strict=True) if at is not None and at < latest]:
            await self._state.run(listings.drop(keys.tenant_batches(self._tenant), gone))

    async def _active(self) -> list[str]:
        """Give the tenant's batches that may not have ended, in the order of its listing."""
        ids = [batch_id for batch_id, _ in await self._state.run(batches.active())]
        if not ids:
            return []
        times = await self._state.run(batches.listed_at(self._tenant, ids))
        since, until = self._wanted.since or -math.inf, self._wanted.until or math.inf
        listed = [(at, each) for each, at in zip(ids, times, strict=True) if at is not None and since <= at <= until]
        return [batch_id for _, batch_id in sorted(listed, reverse=True)]

    async def _running(self, ids: Sequence[str]) -> AsyncGenerator[BatchRecord]:
        for start in range(0, len(ids), self._chunk):
            for record in await self._read(ids[start : start + self._chunk]):
                if not record.batch.status.is_terminal:
                    yield record

    async def _read(self, ids: Sequence[str]) -> list[BatchRecord]:
        """Read batches, and give those that are wanted."""
        records = await self._state.run_all([batches.read(batch_id) for batch_id in ids])
        self._gone += [batch_id for batch_id, record in zip(ids, records, strict=True) if record is None]
        return [record for record in records if record is not None and self._wanted.matches(record)]
