from __future__ import annotations

import gzip
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers import ProviderError
from workers.providers.codings import GarbledError, decoded
from workers.providers.reader import AnswerReader

if TYPE_CHECKING:
    from collections.abc import Callable

Form: TypeAlias = "Callable[[int, bytes], bytes]"

BODIES = st.binary(max_size=300)
STATUSES = st.sampled_from([200, 201, 400, 429, 503])
CUTS = st.lists(st.integers(0, 400), max_size=8)


def head(status: int, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Reason" % status, b"X-Request-Id: req_1", *lines]) + b"\r\n\r\n"


def with_length(status: int, body: bytes) -> bytes:
    return head(status, b"Content-Length: %d" % len(body)) + body


def in_chunks(status: int, body: bytes) -> bytes:
    chunks = [body[start : start + 7] for start in range(0, len(body), 7)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(status, b"Transfer-Encoding: chunked") + framed + b"0\r\n\r\n"


def compressed(status: int, body: bytes) -> bytes:
    small = gzip.compress(body)
    return head(status, b"Content-Encoding: gzip", b"Content-Length: %d" % len(small)) + small


def after_information(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 103 Early Hints\r\nX-Request-Id: other\r\n\r\n" + with_length(status, body)


FORMS = st.sampled_from([with_length, in_chunks, compressed, after_information])


def feed_in_pieces(reader: AnswerReader, answer: bytes, cuts: list[int]) -> None:
    for start, end in pairwise([0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]):
        reader.feed(answer[start:end])


@given(FORMS, STATUSES, BODIES, CUTS)
def test_an_answer_is_the_same_however_its_bytes_come(form: Form, status: int, body: bytes, cuts: list[int]) -> None:
    reader = AnswerReader()
    for _ in range(2):
        reader.begin()
        feed_in_pieces(reader, form(status, body), cuts)
        assert (reader.is_whole, reader.keeps_alive) == (True, True)
        assert (reader.status_code, reader.headers["x-request-id"], reader.body()) == (status, "req_1", body)


@given(FORMS, STATUSES, BODIES, st.data())
def test_a_part_of_an_answer_is_none(form: Form, status: int, body: bytes, data: st.DataObject) -> None:
    reader, answer = AnswerReader(), form(status, body)
    reader.feed(answer[: data.draw(st.integers(0, len(answer) - 1))])
    assert not reader.is_whole
    with pytest.raises(ProviderError) as raised:
        reader.end("")
    assert raised.value.code == ("invalid_response" if reader.is_headed else "connection_error")


@given(FORMS, STATUSES, BODIES, st.one_of(st.binary(), st.just(with_length(500, b"another"))))
def test_what_comes_behind_an_answer_changes_nothing_of_it(form: Form, status: int, body: bytes, behind: bytes) -> None:
    reader = AnswerReader()
    reader.feed(form(status, body) + behind)
    assert (reader.status_code, reader.headers["x-request-id"], reader.body()) == (status, "req_1", body)
    assert reader.keeps_alive == (not behind.strip(b"\r\n"))


@given(STATUSES, BODIES, CUTS)
def test_without_a_length_the_end_is_the_end(status: int, body: bytes, cuts: list[int]) -> None:
    reader = AnswerReader()
    feed_in_pieces(reader, head(status) + body, cuts)
    assert not reader.is_whole
    reader.end("")
    assert (reader.is_whole, reader.keeps_alive, reader.body()) == (True, False, body)


def test_an_end_that_was_an_accident_is_not_the_end_of_an_answer() -> None:
    reader = AnswerReader()
    reader.feed(head(200) + b"{}")
    with pytest.raises(ProviderError, match=r"cut short: Connection reset"):
        reader.end("Connection reset")


@given(st.binary(), st.binary())
def test_any_bytes_are_an_answer_or_an_error(first: bytes, second: bytes) -> None:
    reader = AnswerReader()
    with suppress(ProviderError):
        reader.feed(b"HTTP/1.1 " + first)
        reader.feed(second)


@given(st.sampled_from(["gzip", "deflate"]), st.binary(min_size=1, max_size=200))
def test_bytes_that_are_not_of_a_coding_are_refused_or_undone_within_the_bound(coding: str, body: bytes) -> None:
    with suppress(GarbledError):
        assert len(decoded(body, coding, 50)) <= 51
