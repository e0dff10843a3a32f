"""One run of one tool, from a cold start to its output: the plain loop, `batchord run`, or another tool."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from tests.benchmarks.sampler import Usage, running, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.benchmarks.sampler import Observer

SLOWEST_LINES_PER_S = 50
RUN_TIMEOUT_S = 300
SERVER_TIMEOUT_S = 20
Tool = Literal["plain", "batchord", "celery-prefork", "celery-gevent", "lm-deluge"]

UPSTREAM = """\
[providers.upstream]
kind = "openai"
base_url = "{base_url}"
models = ["*"]
max_concurrency = {in_flight}
"""
MODULES: dict[Tool, tuple[str, ...]] = {
    "plain": ("tests.benchmarks.plain",),
    "celery-prefork": ("tests.benchmarks.stock", "--pool", "prefork"),
    "celery-gevent": ("tests.benchmarks.stock", "--pool", "gevent"),
    "lm-deluge": ("tests.benchmarks.deluge",),
}
"""The program of each tool but batchord, and the options that it takes besides."""


class BenchmarkError(Exception):
    """A tool failed, or its output is not complete: there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition: the upstream's latency in seconds, and how many requests may be in flight."""

    latency_s: float
    in_flight: int


@dataclass(frozen=True, slots=True)
class Input:
    """An input file and how many lines it has."""

    path: Path
    lines: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. The batch phase is what both tools do: from the start of the sending to the last answer kept.

    `before_s` is the start of the command and, for batchord, its plan; `after_s` its export and its end.
    """

    tool: Tool
    cell: Cell
    lines: int
    answered: int
    started_at: float
    before_s: float
    batch_s: float
    after_s: float
    upstream_s: float
    cpu_batch_s: float
    cpu_total_s: float
    peak_bytes: int
    server_cpu_s: float
    requests: int
    repeated: int
    peak_in_flight: int
    reported: dict[str, Any]

    @property
    def ended_at(self) -> float:
        """When the batch phase ended, in epoch seconds."""
        return self.started_at + self.batch_s

    @property
    def wall_s(self) -> float:
        """Seconds from the command's start to its end."""
        return self.before_s + self.batch_s + self.after_s


class Finished(NamedTuple):
    """A command that has ended: what it used, and the JSON object that it printed last."""

    usage: Usage
    reported: dict[str, Any]


class _Response(msgspec.Struct):
    status_code: int


class _OutputLine(msgspec.Struct):
    custom_id: str
    response: _Response


def write_input(path: Path, lines: int) -> Input:
    """Write `lines` chat requests of about 400 bytes, no two the same."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, lines + 1):
            question = (
                f"What is {number} times {lines - number}, and is the result even? Show each step in a line of its own."
            )
            messages = [
                {"role": "system", "content": "You are a careful calculator."},
                {"role": "user", "content": question},
            ]
            body = {"model": "benchmark", "messages": messages, "temperature": 0, "max_tokens": 64}
            line = {"custom_id": f"line-{number:07}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return Input(path, lines)


def run(  # noqa: PLR0913, PLR0917 (what a run is made of)
    tool: Tool,
    cell: Cell,
    source: Input,
    folder: Path,
    workers: int,
    observed_by: Callable[[str], Observer] | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run a tool once over the source, in an empty folder, against an upstream started for it.

    What `observed_by` gives for the upstream's base URL sees each sample of the tool's processes.

    Raises:
        BenchmarkError: the tool failed, or it is batchord or the plain loop and not every line was answered.
    """
    (folder / "upstream").mkdir()
    with running(server_command(cell.latency_s), folder / "upstream") as server:
        base_url = first_line(folder / "upstream" / "stdout")
        command = tool_command(tool, cell, source, folder, base_url, workers)
        also = observed_by(base_url) if observed_by else None
        finished = finish(command, folder, RUN_TIMEOUT_S + source.lines / SLOWEST_LINES_PER_S, also, env)
        server.terminate()
        server.wait(SERVER_TIMEOUT_S)
    if tool in {"plain", "batchord"}:
        check_output(folder / "output.jsonl", source.lines)
    answered = len(set(answered_ids(folder / "output.jsonl")))
    return _measured(tool, cell, source.lines, answered, finished, last_object(folder / "upstream" / "stdout"))


def _measured(  # noqa: PLR0913, PLR0917 (what a run is made of)
    tool: Tool, cell: Cell, lines: int, answered: int, finished: Finished, served: dict[str, Any]
) -> Run:
    usage, reported = finished
    # A tool that does not say when its batch phase began is taken to have begun with its first request.
    started_at: float = reported.get("started_at", served["first_at"])
    ended_at: float = started_at + reported["batch_s"]
    return Run(
        tool=tool,
        cell=cell,
        lines=lines,
        answered=answered,
        started_at=started_at,
        before_s=started_at - usage.at[0],
        batch_s=reported["batch_s"],
        after_s=usage.at[-1] - ended_at,
        upstream_s=served["last_at"] - served["first_at"],
        cpu_batch_s=usage.cpu_until(ended_at) - usage.cpu_until(started_at),
        cpu_total_s=usage.cpu_s[-1],
        peak_bytes=usage.peak_bytes,
        server_cpu_s=served["cpu_s"],
        requests=served["requests"],
        repeated=served["repeated"],
        peak_in_flight=served["peak_in_flight"],
        reported=reported,
    )


def server_command(latency_s: float) -> list[str]:
    """Give the command line of the upstream."""
    return [sys.executable, "-m", "tests.benchmarks.server", "--latency-s", str(latency_s)]


def tool_command(  # noqa: PLR0913, PLR0917 (what a run is made of)
    tool: Tool, cell: Cell, source: Input, folder: Path, base_url: str, workers: int
) -> list[str]:
    """Give the command line of a tool that sends the source's lines and writes the folder's output file."""
    if tool == "batchord":
        (folder / "providers.toml").write_text(UPSTREAM.format(base_url=base_url, in_flight=cell.in_flight))
        return batchord_command(source.path, folder, workers)
    module, *more = MODULES[tool]
    options = ["--base-url", base_url, "--in-flight", str(cell.in_flight), *more]
    return [sys.executable, "-m", module, str(source.path), str(folder / "output.jsonl"), *options]


def batchord_command(source: Path, folder: Path, workers: int) -> list[str]:
    """Give the command line of `batchord run`, with its providers file and all that it writes in the folder."""
    options = {
        "--output": folder / "output.jsonl",
        "--errors": folder / "errors.jsonl",
        "--providers": folder / "providers.toml",
        "--data-dir": folder / "state",
        "--workers": workers,
    }
    flat = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "batchord.cli", "run", str(source), *flat, "--json"]


def finish(
    command: Sequence[str],
    folder: Path,
    timeout_s: float = RUN_TIMEOUT_S,
    also: Observer | None = None,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command to its end; `env` is added to the environment, and `also` is given each sample of its tree.

    Raises:
        BenchmarkError: it failed; the message ends with what it said.
    """
    with running(command, folder, {**os.environ, **(env or {})}) as started:
        usage = watch(started, timeout_s, also)
    if started.returncode:
        said = (folder / "stderr").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise BenchmarkError(f"{shlex.join(command)}: exit status {started.returncode}\n{said}")
    return Finished(usage, last_object(folder / "stdout"))


def first_line(path: Path) -> str:
    """Wait for the first line of a starting command's output.

    Raises:
        BenchmarkError: none came in time.
    """
    deadline = time.monotonic() + SERVER_TIMEOUT_S
    while time.monotonic() < deadline:
        line, newline, _ = path.read_text(encoding="utf-8").partition("\n")
        if newline:
            return line
        time.sleep(0.01)
    raise BenchmarkError(f"The upstream did not start: {path.with_name('stderr').read_text(encoding='utf-8')}")


def last_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in the last line of a command's output."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return found


def check_output(path: Path, lines: int) -> None:
    """Make sure that every line was answered well, once.

    Raises:
        BenchmarkError: it was not.
    """
    answered = answered_ids(path)
    if len(answered) != lines or len(set(answered)) != lines:
        raise BenchmarkError(
            f"{path}: {len(answered)} answers, {len(set(answered))} of them distinct, for {lines} lines"
        )


def answered_ids(path: Path) -> list[str]:
    """Give the custom_id of each good answer in an output file."""
    decoder = msgspec.json.Decoder(_OutputLine)
    with path.open("rb") as output:
        return [line.custom_id for line in map(decoder.decode, output) if line.response.status_code == 200]
