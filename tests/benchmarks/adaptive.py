"""How much of a server's capacity a fleet finds by itself, how soon, and what it costs in errors."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.benchmarks.limited import provider, refused_share, serving
from tests.benchmarks.runs import batchord_command, finish
from tests.benchmarks.table import Table
from tests.limited_upstream import Capacity, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.limited import Sent
    from tests.benchmarks.runs import Input

LATENCY_S: Final = (0.1, 0.3)
WINDOW_S: Final = 2.0
"""What a rate is measured over."""
GOAL: Final = 0.9
RUN_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A server's places, and from when on the fleet should have found them; the lines must last for longer."""

    places: int
    lines: int
    settled_s: float
    workers: tuple[int, ...]

    @property
    def lines_per_s(self) -> float:
        """The most that the server can answer."""
        return 2 * self.places / sum(LATENCY_S)

    @property
    def capacities(self) -> dict[str, Capacity]:
        """Give the servers, by what they do with requests beyond their places."""
        return {
            "answers 429": Capacity(places=self.places),
            "answers 503": Capacity(places=self.places, refusal=503),
            "lets them wait": Capacity(places=self.places, waiting=10_000),
            "slows down": Capacity(places=self.places, slows=True),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What a fleet made of a server whose capacity it did not know."""

    beyond: str
    workers: int
    requests: int
    share: float
    """Of the capacity, from `settled_s` on until the last line was sent."""
    goal_after_s: float | None
    error_share: float
    settled_error_share: float


def measure(shape: Shape, beyond: str, source: Input, folder: Path, workers: int) -> Found:
    """Run once, in an empty folder, with no limit stated."""
    with serving(Terms(capacity=shape.capacities[beyond], latency_s=LATENCY_S), folder / "upstream") as server:
        (folder / "providers.toml").write_text(provider("upstream", server.base_url, models=["*"]))
        finish(batchord_command(source.path, folder, workers), folder, RUN_TIMEOUT_S)
        return _found(shape, beyond, workers, server.sent())


def _found(shape: Shape, beyond: str, workers: int, sent: list[Sent]) -> Found:
    first_s = min(each.started_s for each in sent)
    last_s = max(each.started_s for each in sent) - first_s
    answered = sorted(each.ended_s - first_s for each in sent if each.status == 200 and each.ended_s)
    settled_s = min(shape.settled_s, last_s / 2)
    settled = [each for each in sent if each.started_s - first_s >= settled_s]
    return Found(
        beyond,
        workers,
        requests=len(sent),
        share=rate(answered, settled_s, last_s) / shape.lines_per_s,
        goal_after_s=reached_after_s(answered, GOAL * shape.lines_per_s, last_s),
        error_share=refused_share(sent),
        settled_error_share=refused_share(settled),
    )


def rate(answered: Sequence[float], from_s: float, until_s: float) -> float:
    """Give the answers a second between two times; `answered` is in order."""
    return (bisect_left(answered, until_s) - bisect_left(answered, from_s)) / (until_s - from_s)


def reached_after_s(answered: Sequence[float], per_s: float, last_s: float) -> float | None:
    """Give the end of the first window with such a rate, or None where there is none."""
    ends = (WINDOW_S + step / 10 for step in range(max(0, int(10 * (last_s - WINDOW_S)))))
    return next((end for end in ends if rate(answered, end - WINDOW_S, end) >= per_s), None)


def table(measured: Sequence[Found], shape: Shape) -> Table:
    """Show each server."""
    headings = (
        "beyond its places, the server",
        "workers",
        "share of capacity",
        "0.9 after s",
        "errors",
        "errors later",
    )
    rows = [
        (
            each.beyond,
            f"{each.workers}",
            f"{each.share:.2f}",
            "never" if each.goal_after_s is None else f"{each.goal_after_s:.1f}",
            f"{each.error_share:.2%}",
            f"{each.settled_error_share:.2%}",
        )
        for each in measured
    ]
    note = (
        f"{shape.lines:,} lines, {shape.places} places, {LATENCY_S[0]}-{LATENCY_S[1]} s an answer, no limit stated; "
        f"share and errors later: from {shape.settled_s:g} s on; 0.9 after: the end of the first {WINDOW_S:g} s "
        f"with {GOAL:g} of the capacity"
    )
    return Table("adaptive", "A server of unknown capacity", headings, rows, note)
