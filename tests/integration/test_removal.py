"""The removal of a batch leaves nothing of it, wherever it was cut short and whoever goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchord.contract import FileObject, produced_file_id
from batchord.errors import BatchordError, ConflictError
from batchord.lifecycle import Status
from batchord.service.removal import remove_batch
from batchord.state import batches, files, keys, retired
from batchord.state.calls import Call
from batchord.storage import paths
from tests.integration.api import Api, open_api
from tests.integration.api_batches import entered, put_into, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey
    from batchord.state.batches import BatchRecord

_MOST_CALLS = 20


class Died(BatchordError):  # noqa: N818  (no fault, but a death)
    """The process is gone."""


class Mortal:
    """A state or a storage that dies after so many calls, shared with the other one."""

    def __init__(self, real: Any, calls_left: list[int]) -> None:
        self._real, self._calls_left = real, calls_left

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            if not self._calls_left[0]:
                raise Died
            answer = await getattr(self._real, name)(*args)
            self._calls_left[0] -= 1
            return answer

        return call


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path) as api:
        yield api


async def finished(api: Api, **changes: Any) -> BatchRecord:
    """Give an ended batch with everything that one may have: files, parts, analytics, a day of removal."""
    state, blobs = api.backend.state, api.backend.blobs
    batch = await entered(api, Status.COMPLETED, **changes)
    for part in ("output", "errors", "attempts"):
        file_id = produced_file_id(batch.id, part)
        file = FileObject(id=file_id, bytes=1, created_at=1, filename=part, purpose="batch_output", batch_id=batch.id)
        await blobs.put(paths.file(file_id), b"x")
        await state.run_all(files.write(file, listed=part != "attempts"))
    await blobs.put(f"{paths.batch(batch.id)}part", b"x")
    await state.run_all([Call(("HSET", keys.analytics(batch.id), "calls", 1), bool), retired.note(batch.id, 2**40)])
    record = await state.run(batches.read(batch.id))
    assert record is not None
    return record


async def remains(api: Api, folder: Path) -> tuple[list[str], list[str]]:
    names = await api.backend.state.run(Call(("KEYS", "*"), lambda found: sorted(name.decode() for name in found)))
    return names, sorted(str(path) for path in (folder / "storage").rglob("*") if path.is_file())


async def test_only_the_input_file_stays(api: Api, tmp_path: Path) -> None:
    input_id = await stored(api, b"input")
    expected = await remains(api, tmp_path)
    record = await finished(api, input_file_id=input_id)
    await remove_batch(api.backend.state, api.backend.blobs, record)
    assert await remains(api, tmp_path) == expected


async def test_a_removal_that_died_anywhere_is_done_by_whoever_goes_on(api: Api, tmp_path: Path) -> None:
    state, blobs, input_id = api.backend.state, api.backend.blobs, await stored(api, b"input")
    expected = await remains(api, tmp_path)
    for calls in range(1, _MOST_CALLS):
        record, left = await finished(api, input_file_id=input_id), [calls]
        try:
            await remove_batch(Mortal(state, left), Mortal(blobs, left), record)  # type: ignore[arg-type]  # stand for
        except Died:
            assert (await api.get(f"/v1/batches/{record.batch.id}")).status_code == 404
            assert calls == 1 or record.batch.id in await state.run(retired.due(0, 9))
            again = await state.run(batches.read(record.batch.id))
            assert again is not None
            await remove_batch(state, blobs, again)
        assert await remains(api, tmp_path) == expected
        if left[0]:
            assert calls > 5
            return
    raise AssertionError("it never ends")


async def test_a_batch_that_runs_again_is_left_whole(api: Api, tmp_path: Path) -> None:
    record = await finished(api)
    await put_into(api, record.batch.id, Status.VALIDATING)
    before = await remains(api, tmp_path)
    with pytest.raises(ConflictError):
        await remove_batch(api.backend.state, api.backend.blobs, record)
    assert await remains(api, tmp_path) == before


async def test_the_files_of_a_later_round_go_too(api: Api, tmp_path: Path) -> None:
    record = await finished(api)
    batch_id = record.batch.id
    later = produced_file_id(batch_id, "output", 2)
    await api.backend.blobs.put(paths.file(later), b"x")
    await api.backend.state.run(Call(("HSET", keys.batch(batch_id), "round", 2, "produced_round", 0), int))
    again = await api.backend.state.run(batches.read(batch_id))
    assert again is not None
    await remove_batch(api.backend.state, api.backend.blobs, again)
    _, objects = await remains(api, tmp_path)
    assert objects == []
