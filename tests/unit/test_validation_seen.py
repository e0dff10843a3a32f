"""What the lines of a file say is remembered on disk, and leave nothing there."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchord.errors import StorageUnavailableError
from batchord.validation import Seen

OPEN_FILES = Path("/proc/self/fd")


def test_the_line_of_the_first_one_is_given() -> None:
    with Seen() as seen:
        assert seen.first(b"a", 3) is None
        assert seen.first(b"b", 4) is None
        assert seen.first(b"a", 17) == 3
        assert seen.first(b"a", 18) == 3
        assert seen.first(b"b", 19) == 4


@settings(deadline=None)
@given(st.lists(st.text(max_size=2), max_size=40))
def test_it_finds_what_a_dictionary_finds(custom_ids: list[str]) -> None:
    first_lines: dict[str, int] = {}
    with Seen() as seen:
        for line, custom_id in enumerate(custom_ids, start=1):
            known = first_lines.get(custom_id)
            assert seen.first(custom_id.encode(), line) == known
            first_lines.setdefault(custom_id, line)


def test_two_scans_do_not_meet() -> None:
    with Seen() as one, Seen() as other:
        assert one.first(b"a", 1) is None
        assert other.first(b"a", 1) is None


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="needs a system that shows a process's open files")
def test_many_ids_are_on_disk_in_a_file_without_a_name() -> None:
    before_bytes = _nameless_bytes()
    with Seen() as seen:
        _fill(seen, 150_000)
        assert _nameless_bytes() - before_bytes > 1_000_000
        assert seen.first(b"id-17", 150_000) == 17
    assert _nameless_bytes() == before_bytes


def _nameless_bytes() -> int:
    """Give the size of the files that this process holds open and that no folder lists."""
    files = [link.stat() for link in OPEN_FILES.iterdir() if link.is_file()]
    return sum(file.st_size for file in files if file.st_nlink == 0)


def test_memory_does_not_grow_with_the_ids() -> None:
    tracemalloc.start()
    try:
        with Seen() as seen:
            _fill(seen, 20_000)
            held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 100_000


def test_a_full_disk_is_an_error_that_says_what_to_do() -> None:
    with Seen() as seen:
        seen._database.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StorageUnavailableError, match=r"cannot be kept: .*disk is full.*Set TMPDIR to a folder"):
            _fill(seen, 10_000)


def _fill(seen: Seen[int], ids: int) -> None:
    for line in range(ids):
        seen.first(b"id-%d" % line, line)
