"""What a tenant's small batch waits while another tenant's large one runs, at one server."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from tests.benchmarks.limited import provider, serving
from tests.benchmarks.runs import BenchmarkError, first_line, write_input
from tests.benchmarks.sampler import running
from tests.benchmarks.table import Table
from tests.limited_upstream import Terms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LATENCY_S: Final = 0.1
TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.02
SHARDS_A_WINDOW: Final = 4
"""As by default."""
KEYS: Final = {"large": "key-large", "small": "key-small"}
"""The tenants."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The lines of both batches, what may be in flight, and the lines of a batch that the fleet has open at a time."""

    large_lines: int
    small_lines: int
    in_flight: int
    window_lines: int


@dataclass(frozen=True, slots=True)
class Waited:
    """What the small batch took, from its creation to its end: alone, and beside the large one."""

    alone_s: float
    beside_s: float
    window_s: float
    """What the server needs for a window."""

    @property
    def ratio(self) -> float:
        """How it compares with what it may take: alone, and a window."""
        return self.beside_s / (self.alone_s + self.window_s)


def measure(shape: Shape, folder: Path, rounds: int) -> Waited:
    """Serve both tenants in an empty folder; the medians of so many small batches, one after another.

    Raises:
        BenchmarkError: the large batch ended too soon, or a request was not answered well.
    """
    with (
        serving(Terms(latency_s=(LATENCY_S, LATENCY_S)), folder / "upstream") as upstream,
        _serving(shape, upstream.base_url, folder) as base_url,
    ):
        return asyncio.run(_measure(shape, base_url, folder, rounds))


@contextmanager
def _serving(shape: Shape, upstream_url: str, folder: Path) -> Iterator[str]:
    """Run the server; gives its base URL."""
    (folder / "providers.toml").write_text(
        provider("upstream", upstream_url, models=["*"], max_concurrency=shape.in_flight)
    )
    options = ["--port", "0", "--providers", str(folder / "providers.toml"), "--data-dir", str(folder / "data")]
    keys = ",".join(f"{tenant}:{key}" for tenant, key in KEYS.items())
    env = {
        "BATCHORD_API_KEYS": keys,
        "BATCHORD_WINDOW_LINES": str(shape.window_lines),
        "BATCHORD_SHARD_LINES": str(shape.window_lines // SHARDS_A_WINDOW),
    }
    with running([sys.executable, "-m", "batchord.cli", "serve", *options], folder, {**os.environ, **env}):
        yield first_line(folder / "stdout").split('base_url="')[1].split('"')[0]


async def _measure(shape: Shape, base_url: str, folder: Path, rounds: int) -> Waited:
    async with _Tenant(base_url, "large") as large, _Tenant(base_url, "small") as small:
        large_file = await large.upload(folder, shape.large_lines)
        small_file = await small.upload(folder, shape.small_lines)
        await small.wait(await small.create(small_file))  # the first one finds a cold fleet
        alone_s = await _median_s(small, small_file, rounds)
        long_id = await large.create(large_file)
        await large.wait(long_id, completed=shape.in_flight)
        beside_s = await _median_s(small, small_file, rounds)
        if (await large.read(long_id))["status"] != "in_progress":
            raise BenchmarkError("The large batch ended before the measurement did.")
        await large.cancel(long_id)
    return Waited(alone_s, beside_s, window_s=shape.window_lines * LATENCY_S / shape.in_flight)


async def _median_s(tenant: _Tenant, file_id: str, rounds: int) -> float:
    taken_s = []
    for _ in range(rounds):
        began_at = time.perf_counter()
        await tenant.wait(await tenant.create(file_id))
        taken_s.append(time.perf_counter() - began_at)
    return statistics.median(taken_s)


class _Tenant:
    """A client with a tenant's key."""

    def __init__(self, base_url: str, name: str) -> None:
        self._base_url, self._key = base_url, KEYS[name]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers={"authorization": f"Bearer {self._key}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def upload(self, folder: Path, lines: int) -> str:
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", write_input(folder / "input.jsonl", lines).path.read_bytes(), filename="input.jsonl")
        return str((await self._ask("POST", "/files", data=form))["id"])

    async def create(self, file_id: str) -> str:
        asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str((await self._ask("POST", "/batches", json=asked))["id"])

    async def read(self, batch_id: str) -> dict[str, Any]:
        return await self._ask("GET", f"/batches/{batch_id}")

    async def cancel(self, batch_id: str) -> None:
        await self._ask("POST", f"/batches/{batch_id}/cancel")

    async def wait(self, batch_id: str, completed: int | None = None) -> None:
        """Wait until so many lines are completed; until the batch is, if it is not said how many."""
        async with asyncio.timeout(TIMEOUT_S):
            while not _is_there(await self.read(batch_id), completed):  # noqa: ASYNC110 (a server elsewhere)
                await asyncio.sleep(POLL_S)  # a poll, not a pause

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        async with self._session.request(method, self._base_url + path, **content) as answer:
            if answer.status != 200:
                raise BenchmarkError(f"{method} {path}: {answer.status} {await answer.text()}")
            answered: dict[str, Any] = await answer.json()
            return answered


def _is_there(batch: dict[str, Any], completed: int | None) -> bool:
    if batch["status"] in {"failed", "cancelled", "expired"}:
        raise BenchmarkError(f"A batch ended as {batch['status']}.")
    if completed is None:
        return bool(batch["status"] == "completed")
    return bool(batch["request_counts"]["completed"] >= completed)


def table(measured: Waited, shape: Shape) -> Table:
    """Show the one condition."""
    headings = ("", "small batch s", "window s", "ratio")
    rows = [
        ("alone", f"{measured.alone_s:.2f}", "", ""),
        ("beside the large one", f"{measured.beside_s:.2f}", f"{measured.window_s:.2f}", f"{measured.ratio:.2f}"),
    ]
    note = (
        f"a batch of {shape.small_lines} lines of one tenant beside one of {shape.large_lines:,} of another; "
        f"{1000 * LATENCY_S:.0f} ms, {shape.in_flight} in flight, windows of {shape.window_lines:,} lines; "
        "ratio: to what it took alone and what the server needs for a window"
    )
    return Table("fairness", "A small batch beside a large one", headings, rows, note)
