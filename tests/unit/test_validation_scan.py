"""A whole file: what is accepted, what is reported, and when reading may stop."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchord.contract import BatchProblem
from batchord.validation import Accepted, Scan, ScanResult

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "/v1/chat/completions"
PATTERNS = ("local: llama-*", "only: o-*")


@dataclass(frozen=True)
class Way:
    provider: str
    model: str
    single_model: bool = False
    is_named: bool = False


def route(model: str) -> Way | None:
    if model.startswith("local:"):
        return Way("local", model.removeprefix("local:"))
    if model.startswith("llama-"):
        return Way("local", model)
    if model.startswith(("o-", "only:")):
        return Way("only", model.removeprefix("only:"), single_model=True)
    return None


def line(custom_id: str, model: str = "llama-1", **changes: Any) -> bytes:
    body = {"model": model, "messages": []}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body} | changes).encode() + b"\n"


def scan_file(*chunks: bytes, endpoint: str | None = CHAT, **options: Any) -> tuple[list[Accepted], ScanResult]:
    given_options: dict[str, Any] = {"route": route, "patterns": PATTERNS} | options
    with Scan(endpoint, **given_options) as scan:
        accepted = [line for chunk in chunks for line in scan.feed(chunk)]
        result = scan.finish()
    return accepted + result.rest, result


def problems_of(*chunks: bytes, **options: Any) -> list[tuple[int | None, str]]:
    _, result = scan_file(*chunks, **options)
    return [(problem.line, problem.code) for problem in result.problems]


def test_a_good_file_is_accepted_line_by_line_with_its_providers() -> None:
    accepted, result = scan_file(line("a"), b"\n" + line("b", "o-1"), line("c", "local:x").rstrip())
    assert [(entry.line, entry.custom_id, entry.provider, entry.model) for entry in accepted] == [
        (1, "a", "local", "llama-1"),
        (3, "b", "only", "o-1"),
        (4, "c", "local", "x"),
    ]
    assert [entry.custom_id for entry in result.rest] == ["c"]
    assert (result.lines, result.endpoint, result.problems, result.more) == (3, CHAT, (), 0)


def test_the_body_keeps_its_bytes_unless_its_model_names_a_provider() -> None:
    plain = b'{"model": "llama-1", "messages": [ ], "n": 1.0}'
    named = b'{"model": "local:x", "messages": [ ], "n": 1.0}'
    form = b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":%s}\n'
    accepted, _ = scan_file(form % (b"a", plain) + form % (b"b", named))
    assert [entry.body for entry in accepted] == [plain, b'{"model":"x","messages":[ ],"n":1.0}']


def test_without_routes_every_model_passes_as_it_is() -> None:
    (entry,), result = scan_file(line("a", "any:thing"), route=None)
    assert (entry.provider, entry.model, result.problems) == ("", "any:thing", ())


def test_every_bad_line_is_reported_once_in_line_order() -> None:
    chunks = [
        line("a"),
        b"oops\n",
        line("b", method="GET", url="/v1/nope"),
        b"\n",
        line("a"),
        line("c", "gpt-5"),
        line("d", url="/v1/embeddings"),
        line("e"),
        line("", "llama-1").rstrip(),
    ]
    _, result = scan_file(*chunks)
    assert [(problem.line, problem.code, problem.param) for problem in result.problems] == [
        (2, "invalid_json_line", None),
        (3, "invalid_method", "method"),
        (5, "duplicate_custom_id", "custom_id"),
        (6, "model_not_found", "body.model"),
        (7, "invalid_url", "url"),
        (9, "invalid_request", "custom_id"),
    ]
    assert (result.lines, result.more) == (8, 0)


def test_nothing_is_accepted_from_the_first_problem_on() -> None:
    accepted, _ = scan_file(line("a"), b"oops\n" + line("b"), line("c").rstrip())
    assert [entry.custom_id for entry in accepted] == ["a"]


def test_a_duplicate_names_the_line_of_the_first() -> None:
    _, result = scan_file(b"\n\n", line("x"), *(line(str(number)) for number in range(13)), line("x"))
    assert result.problems == (
        BatchProblem(
            line=17,
            code="duplicate_custom_id",
            param="custom_id",
            message="The custom_id 'x' for this request is a duplicate of another request. "
            "The custom_id parameter must be unique for each request in a batch.",
            summary="custom_id: duplicates line 3",
        ),
    )


def test_a_line_with_a_fault_of_its_own_does_not_make_others_duplicates() -> None:
    assert problems_of(line("a", method="GET"), line("a")) == [(1, "invalid_method")]


def test_duplicates_are_found_among_lines_whose_model_is_unknown() -> None:
    assert problems_of(line("a", "gpt-5"), line("a")) == [(1, "model_not_found"), (2, "duplicate_custom_id")]


@pytest.mark.parametrize(("patterns", "shown"), [(PATTERNS, "local: llama-*; only: o-*"), ((), "none")])
def test_an_unknown_model_is_reported_with_those_that_are_configured(patterns: tuple[str, ...], shown: str) -> None:
    _, result = scan_file(line("a", "gpt-5"), patterns=patterns)
    assert result.problems == (
        BatchProblem(
            line=1,
            code="model_not_found",
            param="body.model",
            message="The provided model 'gpt-5' is not supported by the Batch API.",
            summary=f"body.model: no provider serves 'gpt-5'; configured: {shown}",
        ),
    )


def test_a_provider_of_one_model_a_batch_refuses_a_second() -> None:
    accepted, result = scan_file(line("a", "o-1"), line("b"), line("c", "only:o-1"), line("d", "llama-2"))
    assert (len(accepted), result.problems) == (4, ())
    _, result = scan_file(line("a", "o-1"), line("b"), line("c", "only:o-2"), line("d", "o-1"))
    assert result.problems == (
        BatchProblem(
            line=3,
            code="mismatched_model",
            param="body.model",
            message="The model 'only:o-2' for this request does not match the rest of the batch. "
            "Each batch must contain requests for a single model.",
            summary="body.model: is 'only:o-2', but earlier lines say 'o-1'; "
            "provider only takes one model a batch, so split the file",
        ),
    )


def test_the_first_good_line_sets_the_endpoint_where_none_is_given() -> None:
    def embedding(custom_id: str) -> bytes:
        return line(custom_id, url="/v1/embeddings")

    chunks = [line("a", method="GET"), line("b", url="/v1/nope"), embedding("c"), line("d"), embedding("e")]
    _, result = scan_file(*chunks, endpoint=None)
    assert result.endpoint == "/v1/embeddings"
    assert [(problem.line, problem.code) for problem in result.problems] == [
        (1, "invalid_method"),
        (2, "invalid_url"),
        (4, "invalid_url"),
    ]


def test_no_good_line_leaves_the_endpoint_open() -> None:
    _, result = scan_file(b"oops", endpoint=None)
    assert result.endpoint is None


@pytest.mark.parametrize("chunks", [[], [b""], [b"\n \r\n"], [b"\xef\xbb\xbf"]])
def test_an_empty_file_is_refused(chunks: list[bytes]) -> None:
    _, result = scan_file(*chunks)
    assert result.lines == 0
    assert result.problems == (
        BatchProblem(
            line=None,
            code="empty_file",
            param=None,
            message="The input file is empty. Please ensure that the batch contains at least one request.",
            summary="the file is empty; write one request a line",
        ),
    )


def test_a_line_that_is_too_long_is_reported_and_the_rest_read() -> None:
    _, result = scan_file(line("a"), line("b" * 400), line("a"), max_line_bytes=300)
    assert result.problems[0] == BatchProblem(
        line=2,
        code="line_too_long",
        param=None,
        message="This line is longer than 300 bytes.",
        summary="longer than 300 bytes; shorten it or raise BATCHORD_MAX_LINE_BYTES",
    )
    assert [problem.line for problem in result.problems] == [2, 3]


def test_as_many_lines_as_allowed_are_no_problem() -> None:
    accepted, result = scan_file(*(line(str(number)) for number in range(1_000)), b"\n\n", max_lines=1_000)
    assert (len(accepted), result.lines, result.problems) == (1_000, 1_000, ())


def test_one_line_more_than_allowed_is_refused_and_reading_may_stop() -> None:
    with Scan(CHAT, max_lines=1_000) as scan:
        for number in range(1_000):
            scan.feed(line(str(number)))
            assert not scan.full
        assert scan.feed(line("one more") + b"oops\n") == []
        assert scan.full
        assert scan.feed(b"oops\n") == []
        result = scan.finish()
    assert (result.rest, result.lines) == ([], 1_000)
    assert result.problems == (
        BatchProblem(
            line=None,
            code="too_many_tasks",
            param=None,
            message="The input file contains more than 1000 requests, the most that one batch may hold.",
            summary="more than 1,000 lines; split the file or raise BATCHORD_MAX_LINES",
        ),
    )


def test_the_last_line_may_be_the_one_too_many() -> None:
    assert problems_of(line("a"), line("b").rstrip(), max_lines=1) == [(None, "too_many_tasks")]


def test_a_problem_of_the_whole_file_comes_before_those_of_lines() -> None:
    assert problems_of(b"oops\n" * 3, max_lines=2) == [
        (None, "too_many_tasks"),
        (1, "invalid_json_line"),
        (2, "invalid_json_line"),
    ]


@pytest.mark.parametrize(
    ("bad", "more", "note"),
    [
        (100, 0, ""),
        (101, 1, " (1 more problem is not listed)"),
        (1_334, 1_234, " (1,234 more problems are not listed)"),
    ],
)
def test_the_first_hundred_problems_are_kept_and_the_last_says_how_many_more(bad: int, more: int, note: str) -> None:
    _, result = scan_file(line("a"), b"oops\n" * bad)
    assert [problem.line for problem in result.problems] == list(range(2, 102))
    assert result.more == more
    first, last = result.problems[0], result.problems[-1]
    assert last == first.model_copy(
        update={"line": 101, "message": first.message + note, "summary": first.summary + note},
    )


def test_a_problem_of_the_whole_file_takes_one_of_the_places() -> None:
    _, result = scan_file(b"oops\n" * 5, max_lines=4, max_problems=3)
    assert [problem.line for problem in result.problems] == [None, 1, 2]
    assert result.more == 2


def test_a_file_of_bad_lines_takes_no_more_memory_than_a_good_one() -> None:
    tracemalloc.start()
    try:
        with Scan(CHAT) as scan:
            for _ in range(4):
                scan.feed(b"1\n" * 10_000)
            held_bytes, peak_bytes = tracemalloc.get_traced_memory()
            assert scan.finish().more == 40_000 - 100
    finally:
        tracemalloc.stop()
    assert held_bytes < 1_000_000
    assert peak_bytes < 15_000_000


def test_a_chunk_of_very_short_lines_takes_no_memory_for_each() -> None:
    with Scan(CHAT) as scan:
        tracemalloc.start()
        try:
            scan.feed(b"\n" * 1_000_000)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 1_000_000 + 2_000_000  # the chunk, and its pieces


def test_the_deepest_body_that_passes_can_still_have_its_model_replaced() -> None:
    def nested(depth: int) -> bytes:
        body = b'{"model":"local:x","messages":' + b"[" * depth + b"]" * depth + b"}"
        return b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + body + b"}\n"

    verdicts = {depth: bool(scan_file(nested(depth))[0]) for depth in range(700, 1_100)}
    assert set(verdicts.values()) == {True, False}


def chunked(whole: bytes, cuts: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return (whole[start:end] for start, end in pairwise(bounds))


LINES = st.sampled_from([line("a"), line("b", "local:é"), line("c", "gpt-5"), line("a", "o-1"), b"oops\n", b"\r\n"])


@settings(deadline=None)
@given(
    whole=st.lists(LINES, max_size=8).map(b"".join),
    cuts=st.lists(st.integers(0, 900), max_size=8),
    short=st.booleans(),
)
def test_the_cut_of_the_chunks_does_not_matter_to_a_scan(whole: bytes, cuts: list[int], *, short: bool) -> None:
    whole = whole.removesuffix(b"\n") if short else whole
    accepted, result = scan_file(*chunked(whole, cuts), max_lines=6, max_problems=2)
    accepted_at_once, at_once = scan_file(whole, max_lines=6, max_problems=2)
    assert accepted == accepted_at_once
    assert (result.lines, result.problems, result.more) == (at_once.lines, at_once.problems, at_once.more)
