"""What the command line says of itself, and how it refuses a call that cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from batchord.cli import commands
from batchord.errors import ConfigError

if TYPE_CHECKING:
    from click.testing import Result

NAMES = sorted(commands.commands)


def called(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_begins_with_the_one_command_that_needs_no_services(flag: str) -> None:
    result = called(flag)
    assert result.exit_code == 0
    assert "batchord run in.jsonl -o out.jsonl" in result.output
    assert [name for name in NAMES if f"\n  {name} " not in result.output] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_what_it_does_and_what_each_option_is(name: str) -> None:
    result = called(name, "--help")
    assert result.exit_code == 0
    assert commands.commands[name].help
    options = [option for option in commands.commands[name].params if isinstance(option, click.Option)]
    assert [option.opts for option in options if not option.help] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_help_is_wider_than_a_terminal(name: str) -> None:
    assert [line for line in called(name, "--help").output.splitlines() if len(line) > 80] == []


def test_the_exit_codes_of_a_run_are_in_its_help() -> None:
    shown = called("run", "--help").output
    assert all(f"{code} " in shown.split("Exit codes:")[1] for code in (0, 1, 2, 3, 130))


def test_the_version_is_the_package_s() -> None:
    result = called("--version")
    assert result.exit_code == 0
    assert result.output.startswith("batchord, version ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "none.jsonl", "-o", "out.jsonl"], "none.jsonl"),
        (["run", "{input}"], "--output"),
        (["run", "{input}", "-o", "out.jsonl", "--workers", "0"], "--workers"),
        (["submit", "none.jsonl"], "none.jsonl"),
        (["submit", "{input}", "--metadata", "no-equals"], "KEY=VALUE"),
        (["status"], "BATCH_ID"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_wrong_call_is_refused_with_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, arguments: list[str], said: str
) -> None:
    path = tmp_path_factory.mktemp("call") / "in.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    result = called(*(argument.format(input=path) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("workers", [["--workers", "1"], []])
def test_a_worker_whose_storage_cannot_be_opened_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("BATCHORD_STORAGE_URL", "ftp://server/batches")
    error = called("worker", *workers).exception
    assert isinstance(error, ConfigError)
    assert "BATCHORD_STORAGE_URL is not a storage's URL; write for example" in str(error)
