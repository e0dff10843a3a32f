"""What the measured costs of a line amount to: how much one Redis carries, and what examples of fleets need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.runs import Cell

WINDOW_LINES: Final = 4_000
IN_FLIGHT_A_WORKER: Final = 1_000
MOST_LOAD: Final = 0.6
"""How much of a core may be used for good: the rest is for bursts, and for what a dead worker leaves."""
DAY_S: Final = 86_400
TOP_COMMANDS: Final = 12
_SCRIPTS: Final = {"evalsha", "eval"}


@dataclass(frozen=True, slots=True)
class Load:
    """What a line cost in one run: the server, by command too, the workers and the storage. `peak_bytes` is of the run,
    `rest_bytes` of the batch after it.
    """

    cell: Cell
    lines: int
    workers: int
    aof: bool
    batch_s: float
    calls: dict[str, float]
    usec: dict[str, float]
    received_bytes: float
    sent_bytes: float
    redis_cpu_ms: float
    worker_cpu_ms: float
    aof_bytes: float
    stored_bytes: float
    peak_bytes: int
    rest_bytes: int

    @property
    def lines_per_s(self) -> float:
        """The rate of this run."""
        return self.lines / self.batch_s

    @property
    def scripts(self) -> float:
        """Scripts a line: nearly all that the fleet asks for is one, for many lines together."""
        return sum(calls for name, calls in self.calls.items() if name in _SCRIPTS)

    @property
    def commands(self) -> float:
        """Commands a line, those inside of scripts included."""
        return sum(self.calls.values()) - self.scripts


@dataclass(frozen=True, slots=True)
class Held:
    """What Redis keeps for an open window of which nothing is answered: bytes by kind of key, for so many lines."""

    lines: int
    key_bytes: dict[str, int]

    @property
    def bytes_a_line(self) -> float:
        """Their sum for one line."""
        return sum(self.key_bytes.values()) / self.lines


@dataclass(frozen=True, slots=True)
class Idle:
    """What a worker without work asks Redis for in a second, and uses of a core."""

    commands_per_s: float
    worker_cores: float


@dataclass(frozen=True, slots=True)
class Example:
    """A fleet to be sized: so many lines a second, each a call of so many seconds."""

    name: str
    lines_per_s: float
    call_s: float

    @property
    def in_flight(self) -> float:
        """Calls at a time."""
        return self.lines_per_s * self.call_s


EXAMPLES: Final = (
    Example("1 M lines a day, calls of 5 s", 1_000_000 / DAY_S, 5),
    Example("100 M lines a day, calls of 5 s", 100_000_000 / DAY_S, 5),
    Example("10,000 calls of 30 s in flight", 10_000 / 30, 30),
)


def workers_for(example: Example, worker_cpu_ms: float) -> int:
    """Give the worker processes: for their CPU, and for the calls that one holds."""
    by_cpu = example.lines_per_s * worker_cpu_ms / 1000 / MOST_LOAD
    return math.ceil(max(by_cpu, example.in_flight / IN_FLIGHT_A_WORKER))


def line_table(loads: Sequence[Load], idle: Idle) -> Table:
    """Show what a line costs Redis in each run."""
    headings = (
        *("latency ms / in flight", "append-only file", "lines/s", "scripts a line", "commands a line"),
        *("bytes received", "bytes sent", "AOF bytes", "Redis CPU ms", "lines/s a Redis core", "worker CPU ms"),
    )
    rows = [
        (
            f"{1000 * load.cell.latency_s:.0f} / {load.cell.in_flight:,}",
            "on" if load.aof else "off",
            f"{load.lines_per_s:,.0f}",
            f"{load.scripts:.2f}",
            f"{load.commands:.1f}",
            *(f"{size:,.0f}" for size in (load.received_bytes, load.sent_bytes, load.aof_bytes)),
            f"{load.redis_cpu_ms:.3f}",
            f"{1000 / load.redis_cpu_ms:,.0f}",
            f"{load.worker_cpu_ms:.2f}",
        )
        for load in loads
    ]
    note = (
        f"full shards, {loads[0].workers} workers; an idle worker asks for {idle.commands_per_s:.0f} commands a second "
        f"and uses {100 * idle.worker_cores:.1f} % of a core"
    )
    return Table("scale-line", "What a line costs Redis", headings, rows, note)


def command_table(load: Load) -> Table:
    """Show the commands of one run that take the server the most time."""
    names = sorted(load.usec, key=lambda name: -load.usec[name])[:TOP_COMMANDS]
    rows = [(name.upper(), f"{load.calls[name]:.3f}", f"{load.usec[name]:.1f}") for name in names]
    note = "as the server counts it, by the clock; EVALSHA includes its script's commands, which are counted as well"
    return Table(
        "scale-commands", "Redis commands a line", ("command", "calls a line", "microseconds a line"), rows, note
    )


def memory_table(load: Load, held: Held) -> Table:
    """Show what Redis keeps for an open window, and for a batch that has ended."""
    kinds = sorted(held.key_bytes, key=lambda kind: -held.key_bytes[kind])
    rows = [
        (f"`{kind}`", f"{size / held.lines:,.0f}") for kind in kinds if (size := held.key_bytes[kind]) / held.lines >= 1
    ]
    rows.append(("a line of an open window, unanswered", f"{held.bytes_a_line:,.0f}"))
    rows.append(
        ("the same with its answer: the peak of a run, by the lines of a window", f"{_open_bytes(load, held):,.0f}")
    )
    rows.append((f"a batch that has ended, of {load.lines:,} lines, in all", f"{load.rest_bytes:,}"))
    return Table("scale-memory", "Redis memory", ("what", "bytes"), rows)


def sizing_table(load: Load, held: Held) -> Table:
    """Show what each example needs."""
    headings = (
        *("", "lines/s", "calls in flight", "worker processes", "Redis cores", "Redis MB/s in + out"),
        *("Redis MB, open windows", "storage GB a day"),
    )
    rows = [
        (
            example.name,
            f"{example.lines_per_s:,.0f}",
            f"{example.in_flight:,.0f}",
            f"{workers_for(example, load.worker_cpu_ms):,}",
            f"{example.lines_per_s * load.redis_cpu_ms / 1000:.2f}",
            f"{example.lines_per_s * (load.received_bytes + load.sent_bytes) / 1e6:.1f}",
            f"{max(WINDOW_LINES, 2 * example.in_flight) * _open_bytes(load, held) / 1e6:,.0f}",
            f"{example.lines_per_s * load.stored_bytes * DAY_S / 1e9:,.1f}",
        )
        for example in EXAMPLES
    ]
    note = (
        f"by the first run of the table above; worker processes at {100 * MOST_LOAD:.0f} % of a core each and at most "
        f"{IN_FLIGHT_A_WORKER:,} calls each; storage: input and output, {load.stored_bytes:,.0f} bytes a line"
    )
    return Table("scale-sizing", "Examples", headings, rows, note)


def _open_bytes(load: Load, held: Held) -> float:
    return max(held.bytes_a_line, load.peak_bytes / min(load.lines, WINDOW_LINES))
