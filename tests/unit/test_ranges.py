from __future__ import annotations

import pytest

from app import ranges

ETAG = '"file-a"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("Bytes= 2-5 ", (2, 6)),
        ("bytes=0-999999999999999999", (0, 10)),
    ],
)
def test_a_range_gives_its_bytes(header: str, expected: tuple[int, int]) -> None:
    assert ranges.span(header, 10) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "lines=1-2",
        "bytes=--2",
        "bytes=+1-2",
        "bytes=1-" + "9" * 5000,
    ],
)
def test_what_is_no_single_range_gives_the_whole(header: str) -> None:
    assert ranges.span(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size_bytes"),
    [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_a_range_past_the_end_cannot_be_had(header: str, size_bytes: int) -> None:
    with pytest.raises(ranges.UnsatisfiableRangeError):
        ranges.span(header, size_bytes)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (ETAG, True),
        ("*", True),
        (f"W/{ETAG}", True),
        (f'"x", {ETAG}', True),
        ("", False),
        ('"x"', False),
        ("file-a", False),
        ('"file-ab"', False),
    ],
)
def test_a_client_says_what_it_has(header: str, expected: bool) -> None:
    assert ranges.has(header, ETAG) is expected
