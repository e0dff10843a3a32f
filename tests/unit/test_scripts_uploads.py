from __future__ import annotations

import time
from typing import Any

import pytest

from batchord.contract import FileObject, new_file_id, new_part_id, new_upload_id
from batchord.state import keys, uploads
from batchord.state.calls import Call
from batchord.state.uploads import Upload, UploadStatus
from tests.unit.fake_state import FakeState, contents, is_documented, key_names


def upload_object(**changes: Any) -> Upload:
    upload = Upload(
        id=new_upload_id(),
        tenant="team-a",
        bytes=5,
        created_at=time.time(),
        expires_at=int(time.time()) + 3_600,
        filename="你好.jsonl",
        purpose="batch",
    )
    return upload.model_copy(update=changes)


def written(state: FakeState, **changes: Any) -> Upload:
    upload = upload_object(**changes)
    state.run_all(uploads.write(upload, 600))
    return upload


def read(state: FakeState, upload: Upload) -> Upload:
    found = state.run(uploads.read(upload.id))
    assert found is not None
    return found


def file_of(upload: Upload) -> FileObject:
    return FileObject(
        id=new_file_id(), bytes=5, created_at=1, filename=upload.filename, purpose="batch", tenant=upload.tenant
    )


@pytest.mark.parametrize("expires_after_s", [None, 3_600])
def test_an_upload_reads_back_as_it_was_written(state: FakeState, expires_after_s: int | None) -> None:
    upload = written(state, expires_after_s=expires_after_s)
    assert read(state, upload) == upload
    assert state.run(uploads.read("upload_none")) is None


def test_redis_forgets_an_upload_some_time_after_its_end(state: FakeState) -> None:
    upload = written(state)
    assert all(is_documented(name) for name in key_names(state))
    life_s = state.run(Call(("TTL", keys.upload(upload.id)), int))
    assert 3_600 < life_s <= 3_600 + 86_400


def test_parts_are_taken_until_the_upload_ends_or_expires(state: FakeState) -> None:
    upload = written(state)
    parts = [new_part_id() for _ in range(3)]
    now = upload.created_at
    assert state.run(uploads.add_part(upload.id, parts[0], 2, now))
    assert state.run(uploads.add_part(upload.id, parts[1], 3, now))
    assert not state.run(uploads.add_part(upload.id, parts[2], 9, upload.expires_at))
    assert read(state, upload).parts == {parts[0]: 2, parts[1]: 3}
    assert state.run(uploads.complete(upload.id, parts[:2], file_of(upload)))
    assert not state.run(uploads.add_part(upload.id, parts[2], 9, now))


def test_a_part_of_no_upload_makes_none(state: FakeState) -> None:
    assert not state.run(uploads.add_part("upload_none", new_part_id(), 2, 0))
    assert not state.run(uploads.cancel("upload_none"))
    assert key_names(state) == set()


@pytest.mark.parametrize("first", ["complete", "other", "cancel"])
@pytest.mark.parametrize("second", ["complete", "other", "cancel"])
def test_an_upload_ends_once(state: FakeState, first: str, second: str) -> None:
    upload = written(state)
    ends = {
        "complete": uploads.complete(upload.id, ["part_a", "part_b"], file_of(upload)),
        "other": uploads.complete(upload.id, ["part_b", "part_a"], file_of(upload)),
        "cancel": uploads.cancel(upload.id),
    }
    assert state.run(ends[first])
    before = contents(state)
    assert not state.run(ends[second])
    assert contents(state) == before


def test_a_completed_upload_tells_its_file_and_its_parts(state: FakeState) -> None:
    upload = written(state)
    file = file_of(upload)
    assert state.run(uploads.complete(upload.id, ["part_b", "part_a"], file))
    ended = read(state, upload)
    assert (ended.status, ended.part_ids, ended.file) == (UploadStatus.COMPLETED, ("part_b", "part_a"), file)


def test_the_bytes_of_uploads_are_due_a_while_after_they_expire(state: FakeState) -> None:
    early, late = written(state, expires_at=2_000_000_000), written(state, expires_at=2_000_000_100)
    assert state.run(uploads.due(2_000_000_599, 9)) == []
    assert state.run(uploads.due(2_000_000_600, 9)) == [early.id]
    assert state.run(uploads.due(3_000_000_000, 1)) == [early.id]
    state.run(uploads.settled([early.id]))
    assert state.run(uploads.due(3_000_000_000, 9)) == [late.id]
