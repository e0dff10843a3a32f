"""What a line costs the Redis: commands, bytes, CPU and memory, with and without its append-only file.

A fleet of this part's own: a Valkey that it can ask, workers, and the benchmark's upstream.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import redis

from batchord import Client
from batchord.cli.server import server_environment, worker_argv
from batchord.embedded import EmbeddedValkey
from batchord.settings import Settings
from batchord.state import keys
from tests.benchmarks import runs
from tests.benchmarks.costs import Held, Idle, Load
from tests.benchmarks.runs import UPSTREAM, BenchmarkError, first_line, server_command
from tests.benchmarks.sampler import cpu_of, running, tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.runs import Cell, Input

START_S = 60
POLL_S = 0.2
STUCK_LATENCY_S = 3_600


class _Fleet:
    """A Valkey and workers of one upstream, in an empty folder."""

    def __init__(self, folder: Path, latency_s: float, in_flight: int, workers: int, opened: ExitStack) -> None:
        for name in ("upstream", *(f"worker-{number}" for number in range(workers))):
            (folder / name).mkdir(parents=True)
        opened.enter_context(running(server_command(latency_s), folder / "upstream"))
        base_url = first_line(folder / "upstream" / "stdout")
        (folder / "providers.toml").write_text(UPSTREAM.format(base_url=base_url, in_flight=in_flight))
        valkey = opened.enter_context(EmbeddedValkey(folder / "valkey"))
        self.settings = Settings(
            redis_url=valkey.url,
            storage_url=(folder / "storage").as_uri(),
            data_dir=folder,
            providers=folder / "providers.toml",
            fleet_size=workers,
        )
        self.redis = opened.enter_context(redis.Redis.from_url(valkey.url, decode_responses=True))
        self.client = Client(self.settings)
        opened.callback(self.client.close)
        env = server_environment(self.settings)
        started = [
            opened.enter_context(running(worker_argv(), folder / f"worker-{number}", env)) for number in range(workers)
        ]
        self.workers = [psutil.Process(each.pid) for each in started]
        _wait(lambda: self.redis.zcard(keys.WORKERS) == workers, "The workers did not start.", START_S)

    @property
    def worker_cpu_s(self) -> float:
        """What the workers have used so far."""
        return sum(cpu_of(process) for worker in self.workers for process in tree_of(worker))

    def info(self) -> dict[str, Any]:
        """Ask the server for everything."""
        answered: dict[str, Any] = self.redis.info("everything")
        return answered


@contextmanager
def _running(folder: Path, latency_s: float, in_flight: int, workers: int) -> Iterator[_Fleet]:
    with ExitStack() as opened:
        yield _Fleet(folder, latency_s, in_flight, workers, opened)


def measure_load(cell: Cell, source: Input, folder: Path, workers: int, *, aof: bool) -> Load:
    """Run the source once, and ask the server what it did for it.

    Raises:
        BenchmarkError: not every line was answered.
    """
    with _running(folder, cell.latency_s, cell.in_flight, workers) as fleet:
        fleet.redis.config_set("appendonly", "yes" if aof else "no")
        rest_before = sum(_key_bytes(fleet.redis).values())
        fleet.redis.config_resetstat()
        before, worker_s = fleet.info(), fleet.worker_cpu_s
        batch = fleet.client.submit(source.path)
        batch.wait(timeout_s=runs.RUN_TIMEOUT_S + source.lines / runs.SLOWEST_LINES_PER_S)
        after, worker_s = fleet.info(), fleet.worker_cpu_s - worker_s
        record = batch.read()
        if record.batch.request_counts.completed != source.lines:
            raise BenchmarkError(f"{record.batch.request_counts} for {source.lines} lines")
        stats = {name.removeprefix("cmdstat_"): each for name, each in after.items() if name.startswith("cmdstat_")}
        return Load(
            cell,
            source.lines,
            workers,
            aof,
            batch_s=(record.ended_ms - record.started_ms) / 1000,
            calls={name: each["calls"] / source.lines for name, each in stats.items()},
            usec={name: each["usec"] / source.lines for name, each in stats.items()},
            received_bytes=after["total_net_input_bytes"] / source.lines,
            sent_bytes=after["total_net_output_bytes"] / source.lines,
            redis_cpu_ms=1000 * (_cpu_s(after) - _cpu_s(before)) / source.lines,
            worker_cpu_ms=1000 * worker_s / source.lines,
            aof_bytes=(after.get("aof_current_size", 0) - before.get("aof_current_size", 0)) / source.lines,
            stored_bytes=_folder_bytes(folder / "storage") / source.lines,
            peak_bytes=after["used_memory_peak"] - before["used_memory"],
            rest_bytes=sum(_key_bytes(fleet.redis).values()) - rest_before,
        )


def _folder_bytes(folder: Path) -> int:
    sizes = 0
    for parent, _, names in os.walk(folder):  # passes over a folder that is deleted meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                sizes += Path(parent, name).stat().st_size
    return sizes


def _cpu_s(info: dict[str, Any]) -> float:
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def measure_held(source: Input, folder: Path, in_flight: int) -> Held:
    """Send lines that are not answered, and look at what Redis keeps for the window."""
    with _running(folder, STUCK_LATENCY_S, in_flight, workers=1) as fleet:
        before = _key_bytes(fleet.redis)
        fleet.client.submit(source.path)
        lines = min(source.lines, fleet.settings.window_lines)
        _wait(lambda: _published(fleet.redis) == lines, "The window was not published.", START_S)
        held = {name: size - before.get(name, 0) for name, size in _key_bytes(fleet.redis).items()}
        for process in [each for worker in fleet.workers for each in tree_of(worker)]:
            process.kill()  # they would wait for the answers
        return Held(lines, {name: size for name, size in sorted(held.items()) if size > 0})


def _published(client: redis.Redis) -> int:
    """Give how many lines wait in their queue or are being sent."""
    waiting = int(client.llen("provider.upstream"))
    return waiting + int(client.hlen("unacked"))


def measure_idle(folder: Path, for_s: float) -> Idle:
    """Look at a worker that has nothing to do."""
    with _running(folder, 0, 256, workers=1) as fleet:
        fleet.redis.config_resetstat()
        started_at, worker_s = time.monotonic(), fleet.worker_cpu_s
        time.sleep(for_s)  # the measurement itself
        passed_s = time.monotonic() - started_at
        commands = fleet.info()["total_commands_processed"]
        return Idle(commands / passed_s, (fleet.worker_cpu_s - worker_s) / passed_s)


def _key_bytes(client: redis.Redis) -> dict[str, int]:
    """Give the bytes of all keys by kind: what is between the braces, and a shard's number, left out."""
    sizes: dict[str, int] = {}
    for key in client.scan_iter(count=1_000):
        kind = _kind(key)
        sizes[kind] = sizes.get(kind, 0) + int(client.memory_usage(key, samples=0) or 0)
    return sizes


def _kind(key: str) -> str:
    before, brace, after = key.partition("{")
    if not brace:
        return key
    _, _, rest = after.partition("}")
    return f"{before}{{…}}" + ":".join(part for part in rest.split(":") if not part.isdecimal())


def _wait(is_so: Callable[[], bool], otherwise: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchmarkError(otherwise)
        time.sleep(POLL_S)  # a poll, not a pause
