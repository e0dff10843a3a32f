"""`batchord providers` in this process: the check of a file, and the table of what workers report."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from batchord.cli import commands
from batchord.embedded import EmbeddedValkey
from batchord.errors import ConfigError, StateUnavailableError
from batchord.state import conditions, reports, shares
from batchord.state.connection import BlockingState
from batchord.state.reports import Report
from batchord.state.shares import Ask

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.upstream import Upstream


def called(*arguments: str, **environ: str) -> Result:
    none = dict.fromkeys(("BATCHORD_PROVIDERS", "OPENAI_BASE_URL", "OPENAI_API_KEY"))
    return CliRunner().invoke(commands, arguments, env={**none, **environ})


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_right_file_is_summed_up(tmp_path: Path) -> None:
    text = '[providers.a]\nbase_url = "http://h/v1"\nrequests_per_minute = 6000\n[providers.a.limits."m-*"]\n'
    path = written(tmp_path / "p.toml", f"{text}tokens_per_minute = 1000\n[providers.b]\nkind = 'simulated'\n")
    ended = called("providers", "check", str(path))
    assert ended.exit_code == 0
    assert ended.stdout.splitlines() == [
        f"{path}: 2 providers",
        "  a: openai at h; models *",
        "    limits: 6,000 requests/min; learned: requests in flight (at most 1,000), tokens/min",
        "    m-*: 1,000 tokens/min",
        "  b: simulated; models *",
        "    limits: none stated",
    ]
    assert ended.stderr.startswith(f"note: {path}:6: providers.b.models")


def test_only_what_a_provider_tells_is_said_to_be_learned(tmp_path: Path) -> None:
    tables = (f"[providers.{name}]\npreset='{name}'\nmax_concurrency=5\n" for name in ("groq", "vllm"))
    path = written(tmp_path / "p.toml", "".join(tables))
    ended = called("providers", "check", str(path), GROQ_API_KEY="k")
    limits = [line.strip() for line in ended.stdout.splitlines() if "limits" in line]
    assert limits == ["limits: 5 in flight; learned: tokens/min", "limits: 5 in flight"]


def test_a_wrong_file_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    path = written(tmp_path / "p.toml", "[providers.a]\nbase_url = 'h'\nmax_concurency = 1\n[providers.b]\n")
    ended = called("providers", "check", BATCHORD_PROVIDERS=str(path))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert [line.split(": ")[:2] for line in ended.stderr.splitlines()] == [
        [f"{path}:2", "providers.a.base_url"],
        [f"{path}:3", "providers.a.max_concurency"],
        [f"{path}:4", "providers.b.base_url"],
    ]


def test_a_check_of_no_file_is_refused_with_how_to_name_one() -> None:
    ended = called("providers", "check")
    assert ended.exit_code == 2
    assert "Name a providers file, or set BATCHORD_PROVIDERS" in ended.stderr


@pytest.mark.parametrize("command", [["run", "{folder}/in.jsonl", "-o", "{folder}/out.jsonl"], ["serve"], ["worker"]])
def test_every_command_says_the_same_of_a_wrong_file(tmp_path: Path, command: list[str]) -> None:
    written(tmp_path / "in.jsonl", "{}\n")
    path = written(tmp_path / "p.toml", "[providers.a]\nbase_url = 'http://h'\napi_key_env = 'NOT_SET'\n")
    arguments = [part.format(folder=tmp_path) for part in command]
    error = called(*arguments, "--providers", str(path), BATCHORD_DATA_DIR=str(tmp_path)).exception
    assert isinstance(error, ConfigError)
    said = f"{path}:3: providers.a.api_key_env: the variable NOT_SET is not set; it should hold the API key."
    assert str(error) == said
    assert called("providers", "check", str(path)).stderr == f"{said}\n"


def test_providers_are_asked_whether_they_can_be_reached_and_take_the_key(
    tmp_path: Path, upstream: Upstream, gone: str
) -> None:
    upstream.models = ["m-1", "m-2"]
    text = f'[providers.a]\nbase_url = "{upstream.url}"\napi_key_env = "A_KEY"\n[providers.b]\nbase_url = "{gone}"\n'
    path = written(tmp_path / "p.toml", f'{text}models = ["x"]\n')
    ended = called("providers", "check", str(path), "--connect", A_KEY="sk-s3cret")
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[-2:] == [
        "a: reachable, the key of A_KEY accepted, 2 models",
        "b: not reachable at 127.0.0.1: Connection refused",
    ]
    assert "s3cret" not in ended.output


@pytest.fixture
def environ(valkey: EmbeddedValkey, tmp_path: Path) -> dict[str, str]:
    """The environment beside a fleet whose worker serves `local`, which is paused, and `elsewhere`."""
    text = "[providers.local]\nbase_url = 'http://user:s3cret@h/v1'\nrequests_per_minute = 600\n"
    path = written(tmp_path / "p.toml", text)
    report = Report("w", in_flight=1003, waiting=7, permits=1005, sent=20, rate_per_minute=90.4, refused=5, failed=6)
    report = replace(report, requests_per_minute=500, token_rate_per_minute=1200)
    with closing(BlockingState(valkey.url)) as state:
        state.run(shares.take("w", [Ask("local", 0, 5), Ask("elsewhere", 0, 5)], 60, 1))
        state.run(reports.write({"local": report}))
        state.run(conditions.paused("local", 0, 30, reason="status 429", is_well=True))
    return {"BATCHORD_REDIS_URL": valkey.url, "BATCHORD_PROVIDERS": str(path)}


def test_the_table_shows_what_is_and_what_it_waits_for(environ: dict[str, str]) -> None:
    ended = called("providers", "--once", **environ)
    assert ended.exit_code == 0
    header, local, elsewhere, message = ended.stdout.splitlines()
    assert header == "provider   state   in flight  left  waiting  requests/min  tokens/min  429s  failed  workers"
    assert local.split() == ["local", "paused", "1,003", "2", "7", "90", "of", "500", "1,200", "5", "6", "1"]
    assert elsewhere.split() == ["elsewhere", "ok", "0", "0", "0", "0", "0", "0", "0", "0"]
    assert message.startswith("local asks to wait ")
    assert message.endswith(" s (status 429)")
    assert "s3cret" not in ended.output


def test_without_a_file_the_fleet_itself_says_which_providers_there_are(environ: dict[str, str]) -> None:
    del environ["BATCHORD_PROVIDERS"]
    rows = called("providers", "--once", **environ).stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows[:2]] == ["elsewhere", "local"]


def test_the_fleet_of_a_run_on_this_machine_is_found_by_its_data_dir(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey, closing(BlockingState(valkey.url)) as state:
        state.run(shares.take("w", [Ask("local", 0, 5)], 60, 1))
        rows = called("providers", "--once", "--data-dir", str(tmp_path), OPENAI_API_KEY="k").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["provider", "local"]


def test_the_same_as_json_is_a_list_of_the_api(environ: dict[str, str]) -> None:
    ended = called("providers", "--json", **environ)
    listed: dict[str, Any] = json.loads(ended.stdout)
    assert listed["object"] == "list"
    first = listed["data"][0]
    assert (first["object"], first["id"], first["state"], first["permits_left"]) == ("provider", "local", "paused", 2)


def test_on_a_terminal_the_table_goes_on_until_ctrl_c(environ: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-m", "batchord.cli", "providers"]
    process = subprocess.Popen(arguments, stdout=theirs, stderr=theirs, env={**os.environ, **environ})
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as screen, suppress(OSError):  # how the end of a terminal shows itself
        while shown.count(b"local asks to wait") < 2:
            shown += screen.read(1_000)
        process.send_signal(signal.SIGINT)
        while more := screen.read(1_000):
            shown += more
    try:
        assert process.wait(30) == 0, shown
    finally:
        process.kill()
    assert b"Traceback" not in shown


def test_a_redis_that_is_away_is_said(tmp_path: Path) -> None:
    error = called("providers", "--once", BATCHORD_REDIS_URL=f"unix://{tmp_path}/none.sock").exception
    assert isinstance(error, StateUnavailableError)
