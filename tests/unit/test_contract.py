from __future__ import annotations

import json
import re
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.contract import (
    Answer,
    BatchProblem,
    LineError,
    line_id,
    new_batch_id,
    new_file_id,
    outcome_line,
    problems_from_json,
    problems_to_json,
    produced_file_id,
)

BATCH = "batch_0123456789abcdef0123456789abcdef"
FILE_ID = re.compile(r"file-[A-Za-z0-9]{22}")
PARTS: tuple[Literal["output", "errors", "attempts"], ...] = ("output", "errors", "attempts")


def test_batch_ids_have_the_form_of_openai_s_and_are_never_the_same() -> None:
    ids = {new_batch_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"batch_[0-9a-f]{32}", batch_id) for batch_id in ids)


def test_file_ids_have_the_form_of_openai_s_and_are_never_the_same() -> None:
    ids = {new_file_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(FILE_ID.fullmatch(file_id) for file_id in ids)


def test_a_file_id_uses_its_whole_alphabet() -> None:
    used = set("".join(new_file_id().removeprefix("file-") for _ in range(300)))
    assert len(used) == 62


@pytest.mark.parametrize(
    ("part", "file_id"),
    [
        ("output", "file-XN57YEPxzLkNzY7ABJDWG9"),
        ("errors", "file-TI5f9OH5SWjOfxRPH8oic7"),
        ("attempts", "file-MTca2yuFUElrhsjzVf6KSw"),
    ],
)
def test_a_produced_file_has_the_same_id_in_every_process_and_release(
    part: Literal["output", "errors", "attempts"], file_id: str
) -> None:
    assert produced_file_id(BATCH, part) == file_id


def test_produced_files_of_any_two_batches_or_parts_have_different_ids() -> None:
    ids = [produced_file_id(new_batch_id(), part) for _ in range(100) for part in PARTS]
    assert len(set(ids)) == 300
    assert all(FILE_ID.fullmatch(file_id) for file_id in ids)


def test_a_line_has_the_same_id_in_every_process_and_release() -> None:
    assert line_id(BATCH, 1) == "batch_req_9ddd9889b0aaa0f3fd5a97c6aac678a4"


def test_lines_of_one_batch_and_of_two_have_different_ids() -> None:
    ids = [line_id(batch_id, line) for batch_id in (BATCH, new_batch_id()) for line in range(1, 101)]
    assert len(set(ids)) == 200
    assert all(re.fullmatch(r"batch_req_[0-9a-f]{32}", one) for one in ids)


BODY = b'{"id": "x",  "n": 1.0, "big": 123456789012345678901234567890, "u": "\\u00e9 \xc3\xa9", "choices": []}'


def test_an_answer_is_a_line_with_a_null_error_and_its_body_to_the_byte() -> None:
    line = outcome_line(BATCH, 7, "my-7", Answer(200, "req_1", "local", msgspec.Raw(BODY), 0.25))
    assert line == (
        b'{"id":"%b","custom_id":"my-7","response":{"status_code":200,"request_id":"req_1","provider":"local","body":%b,"cost":0.25},"error":null}'
        % (line_id(BATCH, 7).encode(), BODY)
    )


def test_an_error_is_a_line_with_a_null_response() -> None:
    line = outcome_line(BATCH, 7, "my-7", LineError("batch_expired", "Too late."))
    assert line == (
        b'{"id":"%b","custom_id":"my-7","response":null,"error":{"code":"batch_expired","message":"Too late."}}'
        % line_id(BATCH, 7).encode()
    )


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(custom_id=texts, message=texts)
def test_an_outcome_is_one_line_of_json_whatever_the_client_calls_it(custom_id: str, message: str) -> None:
    line = outcome_line(BATCH, 1, custom_id, LineError("code", message))
    assert b"\n" not in line
    assert b"\r" not in line
    told = json.loads(line)
    assert list(told) == ["id", "custom_id", "response", "error"]
    assert (told["custom_id"], told["error"]["message"]) == (custom_id, message)


@pytest.mark.parametrize("status_code", [200, 201, 400, 503])
def test_an_answer_of_any_status_is_a_response_not_an_error(status_code: int) -> None:
    told = json.loads(outcome_line(BATCH, 1, "a", Answer(status_code, "", "local", msgspec.Raw(b'{"error":{}}'))))
    expected = {"status_code": status_code, "request_id": "", "provider": "local", "cost": None, "body": {"error": {}}}
    assert told["response"] == expected
    assert told["error"] is None


problems = st.builds(
    BatchProblem, code=texts, message=texts, param=st.none() | texts, line=st.none() | st.integers(1), summary=texts
)


@given(st.lists(problems, max_size=3))
def test_problems_are_read_as_they_were_written(written: list[BatchProblem]) -> None:
    assert problems_from_json(problems_to_json(iter(written))) == tuple(written)
