from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchord.contract import FileObject, new_file_id
from batchord.lifecycle import Status
from batchord.state import files, keys, listings
from batchord.state.calls import Call
from tests.unit.fake_state import batch_object, contents, created, is_documented, key_names

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState


def file_object(**changes: Any) -> FileObject:
    file = FileObject(id=new_file_id(), bytes=0, created_at=1_000, filename="in.jsonl", purpose="batch")
    return file.model_copy(update=changes)


def written(state: BlockingState, expires_at: int | None = None, **changes: Any) -> FileObject:
    file = file_object(expires_at=expires_at, **changes)
    state.run_all(files.write(file))
    return file


def listed(state: BlockingState, tenant: str = "default") -> list[str] | None:
    return state.run(listings.page(keys.tenant_files(tenant), after=None, most=99, newest_first=False))


@pytest.mark.parametrize("expires_at", [None, 2_000])
@pytest.mark.parametrize("filename", ["in.jsonl", "你好 “x”.jsonl", "", "007", "null", "line\nbreak"])
def test_a_file_reads_back_as_it_was_written(state: BlockingState, filename: str, expires_at: int | None) -> None:
    file = written(state, expires_at, filename=filename)
    assert state.run(files.read(file.id)) == file


def test_a_file_that_is_not_there_reads_as_none(state: BlockingState) -> None:
    assert state.run(files.read("file-none")) is None


def test_a_file_written_twice_is_one_file(state: BlockingState) -> None:
    file = written(state, 2_000)
    before = contents(state)
    state.run_all(files.write(file))
    assert contents(state) == before


def test_files_expire_in_their_order_and_at_most_so_many_at_once(state: BlockingState) -> None:
    late, early, later = (written(state, at) for at in (2_000, 1_500, 2_001))
    written(state, None)
    assert state.run(files.expired(1_499.9, 10)) == []
    assert state.run(files.expired(2_000, 10)) == [early.id, late.id]
    assert state.run(files.expired(9_999, 2)) == [early.id, late.id]
    state.run_all(files.delete(early, late))
    assert state.run(files.expired(9_999, 2)) == [later.id]


def test_deleted_files_leave_no_key(state: BlockingState) -> None:
    deleted = [written(state, at) for at in (2_000, None)]
    assert all(is_documented(name) for name in key_names(state))
    for _ in range(2):
        state.run_all(files.delete(*deleted))
    assert key_names(state) == set()


def test_a_tenant_s_files_are_listed_by_their_creation_and_produced_ones_only_when_told_so(
    state: BlockingState,
) -> None:
    first, second = file_object(), file_object()
    state.run_all([*files.write(second, at=1_000.75), *files.write(first, at=1_000.5)])
    other = written(state, tenant="other")
    state.run_all(files.write(file_object(), listed=False))
    assert listed(state) == [first.id, second.id]
    assert listed(state, "other") == [other.id]
    state.run_all(files.delete(first))
    assert listed(state) == [second.id]


@pytest.mark.parametrize(("expires_at", "expected"), [(None, []), (2_000, [2_000.0])])
def test_a_reservation_ends_as_the_file_s_own_expiry(
    state: BlockingState, expires_at: int | None, expected: list[float]
) -> None:
    file = file_object(expires_at=expires_at)
    state.run(files.reserve(file.id, 1_500))
    assert state.run(files.expired(1_500, 9)) == [file.id]
    state.run_all(files.write(file))
    assert state.run(files.expired(1_999, 9)) == []
    state.run(files.reserve(file.id, 9_000 if expires_at else 1_500))
    scores = state.run(Call(("ZRANGE", keys.FILES, 0, -1, "WITHSCORES"), lambda pairs: [at for _, at in pairs]))
    assert scores == (expected or [1_500.0])


@pytest.mark.parametrize("status", list(Status))
def test_a_batch_reads_its_input_until_it_has_ended(state: BlockingState, status: Status) -> None:
    expected = None if status.is_terminal else batch_object().input_file_id
    assert state.run(files.input_of(created(state, status))) == expected
    assert state.run(files.input_of("batch_none")) is None
