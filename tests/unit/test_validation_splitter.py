"""Lines are cut as an editor numbers them, wherever the chunks are cut, and in bounded memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchord.validation import Line, LineSplitter

BOM = b"\xef\xbb\xbf"


def split(*chunks: bytes, max_line_bytes: int = 1024) -> list[Line]:
    splitter = LineSplitter(max_line_bytes)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.close()


def split_at_once(whole: bytes, max_line_bytes: int) -> list[Line]:
    """Say the rules again, the plain way."""
    lines = []
    for number, piece in enumerate(whole.removeprefix(BOM).split(b"\n"), start=1):
        raw = piece.removesuffix(b"\r")
        if len(raw) > max_line_bytes:
            lines.append(Line(number, None))
        elif raw.strip():
            lines.append(Line(number, raw))
    return lines


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(b"\n\n", [], id="only newlines"),
        pytest.param(b"a\nb\n", [(1, b"a"), (2, b"b")], id="LF"),
        pytest.param(b"a\r\nb\r\n", [(1, b"a"), (2, b"b")], id="CRLF"),
        pytest.param(b"a\nb", [(1, b"a"), (2, b"b")], id="no newline at the end"),
        pytest.param(b"\na\n \t\r\n\x0b\nb\n", [(2, b"a"), (5, b"b")], id="blank lines count"),
        pytest.param(b"a\rb\nc", [(1, b"a\rb"), (2, b"c")], id="a lone CR ends nothing"),
        pytest.param(
            "a\u2028b\u2029c\u0085d\n".encode(), [(1, "a\u2028b\u2029c\u0085d".encode())], id="Unicode's line ends"
        ),
        pytest.param(b"a\x0bb\x0cc\x1ed\n", [(1, b"a\x0bb\x0cc\x1ed")], id="str.splitlines' line ends"),
        pytest.param(BOM + b"a\nb", [(1, b"a"), (2, b"b")], id="BOM"),
        pytest.param(BOM + b"\r\na", [(2, b"a")], id="BOM alone on a line"),
        pytest.param(BOM + BOM + b"a", [(1, BOM + b"a")], id="only one BOM"),
        pytest.param(b"a\n" + BOM + b"b", [(1, b"a"), (2, BOM + b"b")], id="BOM elsewhere"),
    ],
)
def test_lines_are_numbered_as_an_editor_does(whole: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert split(whole) == expected
    assert split(*(whole[at : at + 1] for at in range(len(whole)))) == expected


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", BOM])
def test_the_limit_is_on_the_line_without_its_mark_and_its_ending(start: bytes, ending: bytes) -> None:
    assert split(start + b"12345678" + ending, max_line_bytes=8) == [(1, b"12345678")]
    assert split(start + b"123456789" + ending, max_line_bytes=8) == [(1, None)]


def test_lines_after_one_that_is_too_long_are_given() -> None:
    assert split(b"a\n12345", b"6789" * 5, b"0\nb\n", max_line_bytes=8) == [(1, b"a"), (2, None), (3, b"b")]


def test_a_line_that_is_too_long_takes_no_memory() -> None:
    splitter, chunk = LineSplitter(max_line_bytes=200_000), b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(256):
            assert splitter.feed(chunk) == []
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert splitter.close() == [(1, None)]
    assert peak_bytes < 1_000_000


def test_a_long_line_in_small_chunks_takes_memory_for_one_or_two_copies() -> None:
    splitter, size_bytes = LineSplitter(), 200_000
    tracemalloc.start()
    try:
        for _ in range(size_bytes):
            splitter.feed(b"x")
        ((number, raw),) = splitter.close()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (number, raw) == (1, b"x" * size_bytes)
    assert peak_bytes < 3 * size_bytes


TOKENS = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"\t",
        b"a",
        b"abcdef",
        b"\xef",
        b"\xbb",
        b"\xbf",
        BOM,
        b"\x0b",
        "é\u2028\u0085".encode(),
    ]
)


@settings(deadline=None)
@given(
    whole=st.one_of(st.binary(max_size=200), st.lists(TOKENS, max_size=60).map(b"".join)),
    cuts=st.lists(st.integers(0, 200), max_size=20).map(sorted),
    max_line_bytes=st.integers(1, 30),
)
def test_the_cut_of_the_chunks_does_not_matter(whole: bytes, cuts: list[int], max_line_bytes: int) -> None:
    bounds = [0, *(min(cut, len(whole)) for cut in cuts), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(bounds)]
    assert b"".join(chunks) == whole
    assert split(*chunks, max_line_bytes=max_line_bytes) == split_at_once(whole, max_line_bytes)
