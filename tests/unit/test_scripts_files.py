from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.contract import FileObject, new_file_id
from batchord.state import files
from tests.unit.fake_state import FakeState, contents, is_documented, key_names

if TYPE_CHECKING:
    from batchord.state.connection import BlockingState


@pytest.fixture
def state() -> BlockingState:
    return FakeState()


def written(state: BlockingState, expires_at: int | None = None, filename: str = "in.jsonl") -> FileObject:
    file = FileObject(
        id=new_file_id(), bytes=0, created_at=1_000, filename=filename, purpose="batch", expires_at=expires_at
    )
    state.run_all(files.write(file))
    return file


@pytest.mark.parametrize("expires_at", [None, 2_000])
@pytest.mark.parametrize("filename", ["in.jsonl", "你好 “x”.jsonl", "", "007", "null", "line\nbreak"])
def test_a_file_reads_back_as_it_was_written(state: BlockingState, filename: str, expires_at: int | None) -> None:
    file = written(state, expires_at, filename)
    assert state.run(files.read(file.id)) == file


def test_a_file_that_is_not_there_reads_as_none(state: BlockingState) -> None:
    assert state.run(files.read("file-none")) is None


def test_a_file_written_twice_is_one_file(state: BlockingState) -> None:
    file = written(state, 2_000)
    before = contents(state)
    state.run_all(files.write(file))
    assert contents(state) == before


def test_files_expire_in_their_order_and_at_most_so_many_at_once(state: BlockingState) -> None:
    late, early, later = (written(state, at).id for at in (2_000, 1_500, 2_001))
    written(state, None)
    assert state.run(files.expired(1_499.9, 10)) == []
    assert state.run(files.expired(2_000, 10)) == [early, late]
    assert state.run(files.expired(9_999, 2)) == [early, late]
    state.run_all(files.delete([early, late]))
    assert state.run(files.expired(9_999, 2)) == [later]


def test_deleted_files_leave_no_key(state: BlockingState) -> None:
    deleted = [written(state, at).id for at in (2_000, None)]
    assert all(is_documented(name) for name in key_names(state))
    for _ in range(2):
        state.run_all(files.delete(deleted))
    assert key_names(state) == set()
