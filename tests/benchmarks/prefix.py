"""What the order of lines does for a provider's prompt cache, for a file whose prefixes are interleaved."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.limited import provider, usages
from tests.benchmarks.runs import SERVER_TIMEOUT_S, batchord_command, check_output, finish, first_line
from tests.benchmarks.sampler import running
from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LATENCY_S = 0.1
PREFIX_BYTES = 6_000


@dataclass(frozen=True, slots=True)
class Shape:
    """The lines and their prefixes, how many of these the provider keeps, and its requests in flight."""

    lines: int
    prefixes: int
    prefixes_most: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Cached:
    """How one run went."""

    prefix_order: bool
    cached_share: float
    lines_per_s: float


def measure(shape: Shape, folder: Path, *, prefix_order: bool) -> Cached:
    """Run the file once in an empty folder."""
    _write_input(folder / "input.jsonl", shape)
    (folder / "upstream").mkdir()
    with running(_server_command(shape), folder / "upstream") as server:
        base_url = first_line(folder / "upstream" / "stdout")
        table = provider("m", base_url, max_concurrency=shape.in_flight, prefix_order=prefix_order)
        (folder / "providers.toml").write_text(table)
        finished = finish(batchord_command(folder / "input.jsonl", folder, workers=1), folder)
        server.terminate()
        server.wait(SERVER_TIMEOUT_S)
    check_output(folder / "output.jsonl", shape.lines)
    return Cached(prefix_order, _cached_share(folder / "output.jsonl"), shape.lines / finished.reported["batch_s"])


def _write_input(path: Path, shape: Shape) -> None:
    """Write the file, of which each line has another prefix than the one before."""
    rules = "Heed each rule. " * PREFIX_BYTES
    prefixes = [f"You are number {number}. {rules}"[:PREFIX_BYTES] for number in range(shape.prefixes)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(shape.lines):
            system = {"role": "system", "content": prefixes[number % shape.prefixes]}
            messages = [system, {"role": "user", "content": f"Line {number}."}]
            body = {"model": "m", "messages": messages}
            line = {"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


def _server_command(shape: Shape) -> list[str]:
    options = ["--latency-s", str(LATENCY_S), "--prefixes-most", str(shape.prefixes_most)]
    return [sys.executable, "-m", "tests.benchmarks.prefix_server", *options]


def _cached_share(output: Path) -> float:
    said = usages(output)
    cached = sum(int(each["prompt_tokens_details"]["cached_tokens"]) for each in said)
    return cached / sum(int(each["prompt_tokens"]) for each in said)


def table(measured: Sequence[Cached], shape: Shape) -> Table:
    """Show both orders."""
    headings = ("prefix_order", "cached tokens", "lines/s")
    rows = [
        (str(each.prefix_order).lower(), f"{each.cached_share:.0%}", f"{each.lines_per_s:,.0f}") for each in measured
    ]
    note = (
        f"one worker; {shape.lines:,} lines with {shape.prefixes} prefixes of {PREFIX_BYTES:,} bytes in turn, "
        f"{shape.in_flight} in flight; the provider keeps the last {shape.prefixes_most} prefixes and answers after "
        f"{1000 * LATENCY_S:.0f} ms"
    )
    return Table("prefix", "A prompt cache, and the order of the lines", headings, rows, note)
