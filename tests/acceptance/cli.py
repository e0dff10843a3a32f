"""The command line as its user has it: in a process of its own, with files in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec
import psutil

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Folder:
    """A user's folder: the input, the providers file, and the files that a run leaves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.input = path / "in.jsonl"
        self.output = path / "out.jsonl"
        self.errors = path / "out.errors.jsonl"
        self.data = path / "out.jsonl.batchord"
        self.providers = path / "providers.toml"

    def write_input(self, lines: Sequence[Any]) -> None:
        """Write the input: an object a line, or text as it is."""
        texts = [line if isinstance(line, str) else msgspec.json.encode(line).decode() for line in lines]
        self.input.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    def write_provider(self, base_url: str, **fields: Any) -> None:
        """Write a providers file of one provider, `local`, of the kind `openai`."""
        table = {"kind": "openai", "base_url": base_url, "models": ["m*"], **fields}
        rows = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in table.items()]
        self.providers.write_text("\n".join(["[providers.local]", *rows]), encoding="utf-8")

    def run_arguments(self, *more: str) -> list[str]:
        """Give the arguments of `batchord run` in this folder."""
        return ["run", str(self.input), "-o", str(self.output), "--providers", str(self.providers), *more]

    def run(self, *more: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run the input to its end."""
        return run_command(self.run_arguments(*more), env=env)

    @property
    def output_lines(self) -> list[dict[str, Any]]:
        return read_lines(self.output)

    @property
    def error_lines(self) -> list[dict[str, Any]]:
        return read_lines(self.errors)


class Running:
    """A command that runs; what it prints goes into two files of its folder."""

    def __init__(self, arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command(arguments), stdout=out, stderr=err, env=environment(env), start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End whatever a failed test has left."""
        left = [*self.children(), psutil.Process(self.process.pid)] if self.process.poll() is None else []
        for process in left:
            process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def children(self) -> list[psutil.Process]:
        """The processes that it started and that still run."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, name: str) -> psutil.Process:
        """The one child whose command line contains `name`."""
        (found,) = [child for child in self.children() if name in " ".join(child.cmdline())]
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for its end."""
        return Ended(self.process.wait(PATIENCE_S), self.out, self.err)


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "batchord.cli", *arguments]


def environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """Give an environment that knows of no provider and no fleet but those of the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHORD_", "OPENAI_"))}
    return {**kept, **(more or {})}


def run_command(arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    ended = subprocess.run(
        command(arguments), capture_output=True, env=environment(env), timeout=PATIENCE_S, check=False, text=True
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def chat(number: int, model: str = "m", text: str | None = None) -> dict[str, Any]:
    """Give a request whose text names its number in a way that no other request's does."""
    messages = [{"role": "user", "content": text or f"<{number}>"}]
    body = {"model": model, "messages": messages}
    return {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition, within a bound."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"It did not come to pass within {patience_s} s: {what}")
        time.sleep(0.02)  # a poll, not a pause


def all_gone(processes: Sequence[psutil.Process]) -> bool:
    """Say whether none of these processes runs any more."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
