from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.acceptance.cli import chat, run_command
from tests.upstream import Rule, Upstream

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder


def test_every_line_is_answered_in_the_input_s_order_and_sent_once_as_it_was(
    folder: Folder, upstream: Upstream
) -> None:
    lines = [chat(number) for number in range(1500)]
    lines[7]["body"] |= {"seed": 12345678901234567890, "temperature": 1.0, "stop": ["\u2028"]}
    folder.write_input(lines)
    folder.write_provider(upstream.url)

    ended = folder.run("--json")

    assert ended.code == 0, ended.err
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(1500)]
    first = folder.output_lines[0]
    assert set(first) == {"id", "custom_id", "response", "error"}
    assert first["error"] is None
    assert set(first["response"]) == {"status_code", "request_id", "provider", "cost", "body"}
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "<0>"
    assert sorted(seen.body for seen in upstream.requests) == sorted(
        msgspec.json.encode(line["body"]).decode() for line in lines
    )
    assert not folder.errors.exists()
    facts = msgspec.json.decode(ended.out)
    assert (facts["status"], facts["total"], facts["completed"], facts["failed"]) == ("completed", 1500, 1500, 0)


def test_the_usual_variables_are_enough_and_the_key_goes_nowhere_else(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(3)])
    key = "sk-very-secret"

    ended = run_command(
        ["run", str(folder.input), "-o", str(folder.output)],
        env={"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": key},
    )

    assert ended.code == 0, ended.err
    assert {seen.headers["authorization"] for seen in upstream.requests} == {f"Bearer {key}"}
    left = [path for path in folder.path.rglob("*") if path.is_file()]
    assert len(left) > 5
    assert [path for path in left if key.encode() in path.read_bytes()] == []
    assert key not in ended.out + ended.err


def test_a_fleet_that_the_environment_names_has_no_part_in_a_run(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(1)])
    elsewhere = folder.path / "elsewhere"

    ended = run_command(
        ["run", str(folder.input), "-o", str(folder.output)],
        env={
            "OPENAI_BASE_URL": upstream.url,
            "BATCHORD_REDIS_URL": "redis://127.0.0.1:1/0",
            "BATCHORD_STORAGE_URL": elsewhere.as_uri(),
        },
    )

    assert ended.code == 0, ended.err
    assert len(folder.output_lines) == 1
    assert not elsewhere.exists()


def test_a_line_goes_to_the_provider_that_it_names_without_the_name(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(1, model="local:llama-3"), chat(2, model="m-1")])
    folder.write_provider(upstream.url)
    assert folder.run().code == 0
    assert [seen.body for seen in upstream.seen("<1>")] == [
        '{"model":"llama-3","messages":[{"role":"user","content":"<1>"}]}'
    ]


def test_lines_that_fail_are_in_the_errors_file_and_nowhere_else(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(20)])
    folder.write_provider(upstream.url, max_attempts=2)
    upstream.rules = [
        Rule(match="<3>", status=400),
        Rule(match="<5>", status=503),
        Rule(match="<7>", status=503, times=1),
        Rule(match="<11>", fault="truncated"),
        Rule(match="<13>", fault="error_in_success"),
        Rule(match="<17>", fault="html", status=502),
    ]

    ended = folder.run()

    assert ended.code == 1, ended.err
    failed = {line["custom_id"]: line for line in folder.error_lines}
    assert list(failed) == ["id-3", "id-5", "id-11", "id-13", "id-17"]
    succeeded = [line["custom_id"] for line in folder.output_lines]
    assert succeeded == [f"id-{number}" for number in range(20) if f"id-{number}" not in failed]
    assert (failed["id-3"]["response"]["status_code"], upstream.count("<3>")) == (400, 1)
    assert (failed["id-5"]["response"]["status_code"], upstream.count("<5>")) == (503, 2)
    assert upstream.count("<7>") == 2
    assert failed["id-11"]["response"] is None
    assert failed["id-11"]["error"]["code"] == "invalid_response"
    assert failed["id-13"]["error"]["code"] == "provider_error"
    assert failed["id-17"]["response"]["body"]["error"]["message"]
    assert "15 of 20 lines succeeded" in ended.err
    assert str(folder.errors) in ended.err


def test_a_provider_that_refuses_connections_fails_the_lines_with_the_reason_and_a_hint(
    folder: Folder, unused_tcp_port: int
) -> None:
    folder.write_input([chat(number) for number in range(3)])
    folder.write_provider(f"http://127.0.0.1:{unused_tcp_port}/v1", max_attempts=2)
    ended = folder.run("--give-up-after", "1")
    assert ended.code == 1
    assert folder.output_lines == []
    assert {line["error"]["code"] for line in folder.error_lines} == {"provider_unavailable"}
    assert all("connection refused" in line["error"]["message"].lower() for line in folder.error_lines)
    assert "Is the server running" in ended.err


def test_an_invalid_file_is_refused_with_every_problem_and_nothing_is_sent(folder: Folder, upstream: Upstream) -> None:
    stream = chat(4)
    stream["body"]["stream"] = True
    folder.write_input([chat(1), '{"custom_id": ', chat(3) | {"method": "GET"}, stream, chat(1)])
    folder.write_provider(upstream.url)

    ended = folder.run()

    assert ended.code == 2
    problems = [line for line in ended.err.splitlines() if line.startswith("line ")]
    assert [problem.split(":")[0] for problem in problems] == ["line 2", "line 3", "line 4", "line 5"]
    assert problems[1].startswith("line 3: method: ")
    assert problems[3] == "line 5: custom_id: duplicates line 1"
    assert upstream.count() == 0
    assert not folder.output.exists()
    assert not folder.errors.exists()


def test_an_unknown_model_is_refused_with_what_is_configured(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(1, model="gpt-unknown")])
    folder.write_provider(upstream.url)
    ended = folder.run()
    assert ended.code == 2
    assert "gpt-unknown" in ended.err
    assert "local: m*" in ended.err


def test_a_refused_file_runs_once_it_is_mended(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(1), chat(1)])
    folder.write_provider(upstream.url)
    assert folder.run().code == 2
    folder.write_input([chat(1), chat(2)])
    assert folder.run().code == 0
    assert upstream.count() == 2


@pytest.mark.parametrize(
    ("output", "said"),
    [("missing/out.jsonl", "does not exist"), (".", "is a directory"), ("/proc/out.jsonl", "cannot be written")],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_starts(
    folder: Folder, upstream: Upstream, output: str, said: str
) -> None:
    folder.write_input([chat(1)])
    folder.write_provider(upstream.url)
    ended = run_command(
        ["run", str(folder.input), "-o", str(folder.path / output), "--providers", str(folder.providers)]
    )
    assert ended.code == 3
    assert said in ended.err
    assert upstream.count() == 0


def test_without_any_provider_the_error_says_what_to_set(folder: Folder) -> None:
    folder.write_input([chat(1)])
    ended = run_command(["run", str(folder.input), "-o", str(folder.output)])
    assert ended.code == 3
    assert "OPENAI_BASE_URL" in ended.err
    assert "--providers" in ended.err


def test_a_key_s_variable_that_is_not_set_is_said_before_anything_is_sent(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(1)])
    folder.write_provider(upstream.url, api_key_env="LOCAL_KEY")
    ended = folder.run()
    assert (ended.code, upstream.count()) == (3, 0)
    assert "LOCAL_KEY" in ended.err


def test_the_cap_of_requests_in_flight_holds(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(200)])
    folder.write_provider(upstream.url, max_concurrency=7)
    upstream.latency_s = 0.02
    assert folder.run("--workers", "2").code == 0
    assert upstream.count() == 200
    assert upstream.max_in_flight <= 7


def test_check_prints_every_problem_and_sends_nothing(folder: Folder) -> None:
    folder.write_input([chat(1), "nonsense", "", chat(1)])
    ended = run_command(["check", str(folder.input)])
    assert ended.code == 2
    assert [line.split(":")[0] for line in ended.err.splitlines()] == ["line 2", "line 4"]
    folder.write_input([chat(1), chat(2, model="m2")])
    ended = run_command(["check", str(folder.input)])
    assert ended.code == 0
    assert "2 lines for /v1/chat/completions" in ended.out
