"""What clients of the server wait while a batch runs: many of them create, poll and list at once.

The same requests go to a bare FastAPI route on the same machine, while the same batch runs: only the ratios mean much.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil

from tests.benchmarks.runs import BenchmarkError, first_line, write_input
from tests.benchmarks.sampler import memory_of, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIX = (*["poll"] * 8, "list", *["poll"] * 9, "list", "create")
"""What a client asks, in turn: mostly for one batch, as a program does that waits for it."""

SIMULATED = """\
[providers.simulated]
kind = "simulated"
models = ["*"]
max_concurrency = 64
latency_s = 0.5
"""
MEMORY_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Shape:
    """How many clients, how many requests each of them sends, one after another, and the lines of the running batch.

    At most 128 of those lines are done in a second; they must last for the whole of a measurement.
    """

    clients: int
    requests_each: int
    running_lines: int


@dataclass(frozen=True, slots=True)
class Load:
    """What one round of a shape took; of each kind of request the 50th and 99th percentile of its milliseconds."""

    shape: Shape
    requests_per_s: float
    p50_ms: dict[str, float]
    p99_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A round against the server and one against the bare route, and the highest memory of the server's API process."""

    server: Load
    bare: Load
    api_peak_bytes: int


def measure(shape: Shape, folder: Path, rounds: int) -> list[Comparison]:
    """Start both servers and a long batch in an empty folder, and load them in turn.

    Raises:
        BenchmarkError: a server failed, or a request was not answered well.
    """
    (folder / "bare").mkdir()
    with _serving(folder) as (base_url, api), running(_bare_command(), folder / "bare"):
        bare_url = first_line(folder / "bare" / "stdout")
        return [asyncio.run(_compare(shape, base_url, bare_url, api, folder)) for _ in range(rounds)]


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run the server; gives its base URL and its API process."""
    (folder / "providers.toml").write_text(SIMULATED, encoding="utf-8")
    options = ["--port", "0", "--providers", str(folder / "providers.toml"), "--data-dir", str(folder / "data")]
    with running([sys.executable, "-m", "batchord.cli", "serve", *options], folder) as server:
        base_url = first_line(folder / "stdout").split('base_url="')[1].split('"')[0]
        children = psutil.Process(server.pid).children()
        (api,) = [child for child in children if child.cmdline()[-2:] == ["-m", "app"]]
        yield base_url, api


def _bare_command() -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.bare"]


async def _compare(shape: Shape, base_url: str, bare_url: str, api: psutil.Process, folder: Path) -> Comparison:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        long_id = await _create(session, base_url, await _upload(session, base_url, folder, shape.running_lines))
        file_id = await _upload(session, base_url, folder, 1)
        await _wait_until_it_runs(session, base_url, long_id)
        sampling = asyncio.create_task(_peak(api))
        server = await _load(session, shape, base_url, long_id, file_id)
        sampling.cancel()
        bare = await _load(session, shape, bare_url, long_id, file_id)
        if (await _ask(session, "GET", f"{base_url}/batches/{long_id}"))["status"] != "in_progress":
            raise BenchmarkError("The batch ended before the measurement did.")
        await _ask(session, "POST", f"{base_url}/batches/{long_id}/cancel")
    return Comparison(server, bare, await sampling)


async def _peak(process: psutil.Process) -> int:
    """Sample a process's memory until cancelled; gives the highest."""
    peak = 0
    while True:
        peak = max(peak, memory_of(process))
        try:
            await asyncio.sleep(MEMORY_INTERVAL_S)
        except asyncio.CancelledError:
            return peak


async def _load(session: aiohttp.ClientSession, shape: Shape, base_url: str, batch_id: str, file_id: str) -> Load:
    taken_ms: dict[str, list[float]] = defaultdict(list)

    async def client(first: int) -> None:
        for number in range(first, first + shape.requests_each):
            kind, started_at = MIX[number % len(MIX)], time.perf_counter()
            await _send(session, kind, base_url, batch_id, file_id)
            taken_ms[kind].append(1000 * (time.perf_counter() - started_at))

    started_at = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(shape.clients):
            tasks.create_task(client(number))  # each begins elsewhere in the mix
    wall_s = time.perf_counter() - started_at
    return Load(
        shape,
        requests_per_s=shape.clients * shape.requests_each / wall_s,
        p50_ms={kind: statistics.median(each) for kind, each in taken_ms.items()},
        p99_ms={kind: percentile(each, 99) for kind, each in taken_ms.items()},
    )


async def _send(session: aiohttp.ClientSession, kind: str, base_url: str, batch_id: str, file_id: str) -> None:
    if kind == "create":
        await _create(session, base_url, file_id)
    elif kind == "list":
        await _ask(session, "GET", f"{base_url}/batches?limit=20")
    elif (await _ask(session, "GET", f"{base_url}/batches/{batch_id}"))["id"] != batch_id:
        raise BenchmarkError(f"{base_url} answered with another batch than {batch_id}.")


async def _upload(session: aiohttp.ClientSession, base_url: str, folder: Path, lines: int) -> str:
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", write_input(folder / "input.jsonl", lines).path.read_bytes(), filename="input.jsonl")
    return str((await _ask(session, "POST", f"{base_url}/files", data=form))["id"])


async def _create(session: aiohttp.ClientSession, base_url: str, file_id: str) -> str:
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str((await _ask(session, "POST", f"{base_url}/batches", json=asked))["id"])


async def _wait_until_it_runs(session: aiohttp.ClientSession, base_url: str, batch_id: str) -> None:
    async with asyncio.timeout(60):
        while (await _ask(session, "GET", f"{base_url}/batches/{batch_id}"))["status"] == "validating":  # noqa: ASYNC110 (a server elsewhere)
            await asyncio.sleep(0.1)  # a poll, not a pause


async def _ask(session: aiohttp.ClientSession, method: str, url: str, **content: Any) -> dict[str, Any]:
    async with session.request(method, url, **content) as answer:
        if answer.status != 200:
            raise BenchmarkError(f"{method} {url}: {answer.status} {await answer.text()}")
        answered: dict[str, Any] = await answer.json()
        return answered


def percentile(values: list[float], percent: int) -> float:
    """Give the smallest value that so many percent of the values do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]
