"""What a provider that hangs, crawls or fails costs another one that shares a worker with it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from tests.benchmarks.limited import provider, serving, took_s
from tests.benchmarks.runs import BenchmarkError, batchord_command
from tests.benchmarks.sampler import running, tree_of
from tests.benchmarks.table import Table
from tests.limited_upstream import Outage, Terms
from tests.upstream import Rule

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.limited import Server

FOR_EVER_S: Final = 3600.0
TIMEOUT_S: Final = 300.0
POLL_S: Final = 0.5
LATENCY_S: Final = 0.1
TROUBLES: Final = {
    "hangs": Rule(fault="hang"),
    "crawls": Rule(fault="slow", latency_s=30),
    "resets connections": Rule(fault="reset"),
    "answers 503": Rule(status=503),
    "answers 429": Rule(status=429),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The lines of each provider, and the requests that each may have in flight."""

    lines: int
    in_flight: int
    troubled_in_flight: int


@dataclass(frozen=True, slots=True)
class Beside:
    """A healthy provider's rate, alone and beside a troubled one, in one worker."""

    trouble: str
    alone_lines_per_s: float
    lines_per_s: float

    @property
    def ratio(self) -> float:
        """What is left of the rate."""
        return self.lines_per_s / self.alone_lines_per_s


def alone(shape: Shape, folder: Path) -> float:
    """Give the healthy provider's lines a second with nobody beside it, in an empty folder."""
    with serving(Terms(latency_s=(LATENCY_S, LATENCY_S)), folder / "healthy") as healthy:
        return _rate(shape, folder, {"healthy": healthy})


def beside(shape: Shape, trouble: str, alone_lines_per_s: float, folder: Path) -> Beside:
    """Run both providers' lines, in an empty folder, until those of the healthy one are answered."""
    outage = Outage(TROUBLES[trouble], for_s=FOR_EVER_S)
    with (
        serving(Terms(latency_s=(LATENCY_S, LATENCY_S)), folder / "healthy") as healthy,
        serving(Terms(outages=(outage,)), folder / "troubled") as troubled,
    ):
        lines_per_s = _rate(shape, folder, {"healthy": healthy, "troubled": troubled})
        if not troubled.sent():
            raise BenchmarkError("Nothing was sent to the troubled provider.")
    return Beside(trouble, alone_lines_per_s, lines_per_s)


def _rate(shape: Shape, folder: Path, servers: dict[str, Server]) -> float:
    in_flight = {"healthy": shape.in_flight, "troubled": shape.troubled_in_flight}
    parts = [provider(name, each.base_url, max_concurrency=in_flight[name]) for name, each in servers.items()]
    (folder / "providers.toml").write_text("\n".join(parts))
    _write_input(folder / "input.jsonl", shape.lines, list(servers))
    with running(batchord_command(folder / "input.jsonl", folder, workers=1), folder) as run:
        _wait(servers["healthy"], shape.lines, run)
        _kill(run)
    return shape.lines / took_s(servers["healthy"].sent())


def _write_input(path: Path, lines: int, models: list[str]) -> None:
    """Write so many lines for each model, in turn."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            for model in models:
                body = {"model": model, "messages": [{"role": "user", "content": f"Line {number}."}]}
                line = {"custom_id": f"{model}-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")


def _wait(server: Server, lines: int, run: subprocess.Popen[bytes]) -> None:
    """Wait until a server has answered so many."""
    deadline = time.monotonic() + TIMEOUT_S
    while sum(each.ended_s is not None for each in server.sent()) < lines:
        if time.monotonic() > deadline or run.poll():
            raise BenchmarkError(f"The healthy provider got {len(server.sent())} of {lines} lines.")
        time.sleep(POLL_S)


def _kill(run: subprocess.Popen[bytes]) -> None:
    """End a run that would wait for the troubled provider's answers."""
    for process in tree_of(psutil.Process(run.pid)):
        process.kill()
    run.wait()


def table(measured: Sequence[Beside], shape: Shape) -> Table:
    """Show each trouble."""
    headings = ("the other provider", "lines/s alone", "lines/s beside it", "ratio")
    rows = [
        (each.trouble, f"{each.alone_lines_per_s:,.0f}", f"{each.lines_per_s:,.0f}", f"{each.ratio:.2f}")
        for each in measured
    ]
    note = (
        f"one worker, {shape.lines:,} lines for each provider, in turn in one file; the healthy one answers after "
        f"{1000 * LATENCY_S:.0f} ms, {shape.in_flight} in flight; the other may have {shape.troubled_in_flight}"
    )
    return Table("isolation", "A provider beside one in trouble", headings, rows, note)
