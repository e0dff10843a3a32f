"""The plan finds the lines that may share an answer, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.shard_file import Original
from batchord.validation import Accepted
from workers.originals import Originals, is_greedy

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b'{"model":"m","messages":[],"temperature":0}'


@pytest.fixture
def originals() -> Iterator[Originals]:
    found = Originals(dedupe=None)
    yield found
    found.close()


def accepted(line: int, body: bytes = BODY, provider: str = "p", *, is_named: bool = False) -> Accepted:
    return Accepted(line, f"id-{line}", "/v1/chat/completions", "m", body, provider, is_named)


def place(line: int) -> Original:
    return Original(10_000_000 + line // 3, line % 3, line)


def test_every_later_line_is_told_of_the_first_one(originals: Originals) -> None:
    assert [originals.of(accepted(line), place(line)) for line in (1, 5, 9)] == [None, place(1), place(1)]


@pytest.mark.parametrize(
    "other",
    [accepted(2, BODY + b" "), accepted(2, provider="q"), accepted(2, is_named=True)],
    ids=["body", "provider", "named"],
)
def test_what_differs_in_anything_is_sent_itself(originals: Originals, other: Accepted) -> None:
    assert originals.of(accepted(1), place(1)) is None
    assert originals.of(other, place(2)) is None


@pytest.mark.parametrize(
    ("body", "greedy"),
    [
        (b'{"temperature":0}', True),
        (b'{"temperature": 0.0, "seed": 1}', True),
        (b'{"temperature":-0e9}', True),
        (b'{"temperature":1,"temperature":0}', True),  # the last one counts
        (b'{"temperature":0,"temperature":1}', False),
        (b'{"temperature":0.01}', False),
        (b'{"temperature":null}', False),
        (b'{"temperature":"0"}', False),
        (b'{"tools":[{"temperature":0}]}', False),
        (b'{"user":"\\"temperature\\":0"}', False),
        (b"{}", False),
    ],
)
def test_a_body_asks_for_temperature_0_itself(body: bytes, greedy: bool) -> None:
    assert is_greedy(body) is greedy


@given(st.lists(st.sampled_from([b'{"n":%d}' % n for n in range(5)]), max_size=30))
def test_each_body_has_one_original_where_the_batch_wants_it(bodies: list[bytes]) -> None:
    firsts: dict[bytes, int] = {}
    found = Originals(dedupe=True)
    for line, body in enumerate(bodies):
        first = firsts.setdefault(body, line)
        assert found.of(accepted(line, body), place(line)) == (None if first == line else place(first))
    found.close()
