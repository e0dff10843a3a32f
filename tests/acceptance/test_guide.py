"""OpenAI's guide to its Batch API, step by step as it is written, against our server: with the SDK and with curl."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.cli import PATIENCE_S, environment, wait_until
from tests.acceptance.server import Server, jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-of-the-reader"


def guide_line(number: int, system: str) -> dict[str, Any]:
    """Give a line of the guide's input file."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "Hello world!"}]
    body = {"model": "gpt-3.5-turbo-0125", "messages": messages, "max_tokens": 1000}
    return {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


BATCH_INPUT = [guide_line(1, "You are a helpful assistant."), guide_line(2, "You are an unhelpful assistant.")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), keys=KEY) as server:
        yield server


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """The reader's folder, after the guide's first step: prepare your batch file."""
    (tmp_path / "batchinput.jsonl").write_bytes(jsonl(BATCH_INPUT))
    return tmp_path


def assert_is_output(text: str) -> None:
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["custom_id"] for line in lines] == ["request-1", "request-2"]
    for line in lines:
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["body"]["choices"][0]["message"]["role"] == "assistant"


def test_the_guide_s_steps_work_with_the_sdk(server: Server, reader: Path) -> None:
    client = server.client()

    with (reader / "batchinput.jsonl").open("rb") as opened:
        batch_input_file = client.files.create(file=opened, purpose="batch")

    batch = client.batches.create(
        input_file_id=batch_input_file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"description": "nightly eval job"},
    )
    assert batch.status == "validating"

    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the batch completes")
    output_file_id = client.batches.retrieve(batch.id).output_file_id
    assert output_file_id is not None

    file_response = client.files.content(output_file_id)
    assert_is_output(file_response.text)

    listed = client.batches.list(limit=10)
    assert batch.id in [each.id for each in listed.data]


class Shell:
    """A reader's shell: the guide's commands, with our server's address in place of OpenAI's."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._base_url = server.base_url
        self._folder = folder
        self._env = environment({"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})

    def run(self, command: str) -> str:
        there = command.replace("https://api.openai.com/v1", self._base_url)
        done = subprocess.run(
            ["/bin/sh", "-c", there],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        return done.stdout

    def ask(self, command: str) -> dict[str, Any]:
        return dict(json.loads(self.run(command)))


UPLOAD = """curl https://api.openai.com/v1/files \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -F purpose="batch" \\
  -F file="@batchinput.jsonl"
"""
CREATE = """curl https://api.openai.com/v1/batches \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "input_file_id": "FILE",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h"
  }'
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_guide_s_steps_work_with_curl(server: Server, reader: Path) -> None:
    shell = Shell(server, reader)

    file = shell.ask(UPLOAD)
    assert (file["object"], file["filename"], file["purpose"]) == ("file", "batchinput.jsonl", "batch")
    batch_id = shell.ask(CREATE.replace("FILE", file["id"]))["id"]

    retrieve = f"""curl https://api.openai.com/v1/batches/{batch_id} \\
      -H "Authorization: Bearer $OPENAI_API_KEY" \\
      -H "Content-Type: application/json"
    """
    wait_until(lambda: shell.ask(retrieve)["status"] == "completed", "the batch completes")
    batch = shell.ask(retrieve)
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}

    shell.run(f"""curl https://api.openai.com/v1/files/{batch["output_file_id"]}/content \\
      -H "Authorization: Bearer $OPENAI_API_KEY" > batch_output.jsonl
    """)
    assert_is_output((reader / "batch_output.jsonl").read_text(encoding="utf-8"))

    listed = shell.ask("""curl https://api.openai.com/v1/batches?limit=2 \\
      -H "Authorization: Bearer $OPENAI_API_KEY" \\
      -H "Content-Type: application/json"
    """)
    assert listed["object"] == "list"
    assert batch_id in [each["id"] for each in listed["data"]]

    (reader / "batchinput.jsonl").write_bytes(jsonl(guide_line(number, "Be brief.") for number in range(20_000)))
    running = shell.ask(CREATE.replace("FILE", shell.ask(UPLOAD)["id"]))
    cancelled = shell.ask(f"""curl https://api.openai.com/v1/batches/{running["id"]}/cancel \\
      -H "Authorization: Bearer $OPENAI_API_KEY" \\
      -H "Content-Type: application/json" \\
      -X POST
    """)
    assert (cancelled["id"], cancelled["status"]) == (running["id"], "cancelling")
