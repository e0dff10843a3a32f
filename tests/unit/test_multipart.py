"""The form's push parser: cut anywhere, a form gives the same parts, and what is no form gives an error."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.multipart import Feeder, Part
from batchord.errors import InvalidRequestError

BOUNDARY = "b0undary"


class Piece(NamedTuple):
    """A part of a form, as a client means it."""

    name: str
    filename: str | None
    content: bytes


def form(pieces: list[Piece]) -> bytes:
    body = b""
    for piece in pieces:
        filename = "" if piece.filename is None else f'; filename="{piece.filename}"'
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{piece.name}"{filename}\r\n'.encode()
        body += b"Content-Type: text/plain\r\n\r\n" + piece.content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def parsed(chunks: list[bytes]) -> list[Piece]:
    feeder, pieces = Feeder(BOUNDARY), []
    for chunk in chunks:
        for event in feeder.feed(chunk):
            if isinstance(event, Part):
                pieces.append(Piece(event.name, event.filename, b""))
            elif isinstance(event, bytes):
                pieces[-1] = pieces[-1]._replace(content=pieces[-1].content + event)
    feeder.close()
    return pieces


names = st.text(  # without what a form would have to escape
    st.characters(blacklist_characters='"\\;', min_codepoint=32, blacklist_categories=["Cs", "Cc"]), min_size=1
)
contents = st.lists(
    st.sampled_from([b"\r\n", b"--", b"\r\n--", b"--" + BOUNDARY.encode(), b"\r\n--b0und", b"\n", b"x", b"\0", b"-"])
    | st.binary(max_size=20)
).map(b"".join)
pieces = st.builds(
    Piece, names, st.none() | names, contents.filter(lambda raw: f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + raw)
)


@given(st.lists(pieces, min_size=1, max_size=4), st.data())
def test_a_form_cut_anywhere_gives_what_its_client_meant(pieces: list[Piece], data: st.DataObject) -> None:
    body = form(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    places = [0, *sorted(cuts), len(body)]
    assert parsed([body[start:end] for start, end in pairwise(places)]) == pieces


@given(st.integers(0, 10_000))
def test_a_form_that_ends_too_early_is_refused(end: int) -> None:
    body = form([Piece("purpose", None, b"batch"), Piece("file", "in.jsonl", b"{}\n" * 5)])
    closing = len(body) - len("--\r\n")
    with pytest.raises(InvalidRequestError, match="closing boundary"):
        parsed([body[: end % closing]])


@given(st.binary(max_size=300))
def test_bytes_that_are_no_form_are_refused_and_never_fail_otherwise(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parsed([b"--" + BOUNDARY.encode() + b"\r\n" + body])


words = st.sampled_from(
    ["filename", "name", "*", "*0", "*1*", "=", ";", '"', "'", "''", "%E4", "utf-8", "idna", "\\", "9" * 9]
)


@given(st.lists(words | st.text(max_size=3)).map("".join))
def test_a_part_s_header_may_be_anything(parameters: str) -> None:
    header = f"Content-Disposition: form-data; name=x; {parameters}".encode("utf-8", "replace")
    body = b"--b0undary\r\n" + header.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n\r\n1\r\n--b0undary--\r\n"
    try:
        [piece] = parsed([body])
    except InvalidRequestError:
        return
    assert (piece.name + (piece.filename or "")).encode().decode()  # it can be kept, and shown


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ('filename="in.jsonl"', "in.jsonl"),
        ("filename=in.jsonl", "in.jsonl"),
        ('filename="你好.txt"', "你好.txt"),
        ('filename="a;b\\"c.jsonl"', 'a;b"c.jsonl'),
        ("filename*=utf-8''%E4%BD%A0.jsonl", "你.jsonl"),
        ("filename*=UTF-8''%e4%bd%a0.jsonl; filename=\"plain.jsonl\"", "你.jsonl"),
        ("filename=\"plain.jsonl\"; filename*=utf-8'zh'%E4%BD%A0.jsonl", "你.jsonl"),
        ("filename*=iso-8859-1''na%EFve.jsonl", "naïve.jsonl"),
        ('filename*0="in"; filename*1=".jsonl"', "in.jsonl"),
        ("filename*=nonsense''%ff.jsonl", "\ufffd.jsonl"),
        ("filename*=utf-7''%2B2AA-.jsonl", "+2AA-.jsonl"),
        ('filename="100%22%41.jsonl"', '100"%41.jsonl'),
        ('filename=""', ""),
        ("x=y", None),
    ],
)
def test_a_file_s_name_is_read_in_every_form(parameters: str, expected: str | None) -> None:
    header = f'Content-Disposition: form-data; name="file"; {parameters}'
    assert parsed([f"--{BOUNDARY}\r\n{header}\r\n\r\n\r\n--{BOUNDARY}--\r\n".encode()]) == [
        Piece("file", expected, b"")
    ]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "closing boundary"),
        (b"hello", "parse"),
        (b"--other\r\n", "parse"),
        (b"--b0undary\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b0undary--", "no name"),
        (b"--b0undary\r\n\r\n1\r\n--b0undary--", "no name"),
        (b"--b0undary\r\n" + b"x" * 10_000 + b": 1\r\n\r\n", "header size"),
        (form([Piece("a", None, b"")] * 101), "100 parts"),
    ],
)
def test_each_broken_form_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        parsed([body])
