"""A run whose file asks for the same again and again: the provider is asked once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.cli import chat

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder
    from tests.upstream import Upstream

LINES, QUESTIONS = 1_000, 10


def test_a_file_of_few_questions_is_a_run_of_few_requests(folder: Folder, upstream: Upstream) -> None:
    upstream.latency_s = 0.5
    folder.write_input([{**chat(n, text=f"<{n % QUESTIONS}>"), "custom_id": f"id-{n}"} for n in range(LINES)])
    folder.write_provider(upstream.url, max_concurrency=32)
    ended = folder.run("--dedupe", "--workers", "2")
    assert ended.code == 0, ended.err
    assert sorted(upstream.count(f"<{question}>") for question in range(QUESTIONS)) == [1] * QUESTIONS
    output = folder.output_lines
    assert [line["custom_id"] for line in output] == [f"id-{n}" for n in range(LINES)]
    for name in ("status_code", "request_id", "body"):
        assert all(line["response"][name] == output[n % QUESTIONS]["response"][name] for n, line in enumerate(output))
    assert {line["response"]["cost"] for line in output[QUESTIONS:]} == {0}
