"""What a person sees of a running batch, on standard error: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from batchord.lifecycle import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from batchord.state.batches import BatchRecord

_LINE_EVERY_S: Final = 5.0
_RATE_OVER_S: Final = 10.0


class Shown(Protocol):
    """Where a batch's progress is shown."""

    def update(self, record: BatchRecord, trouble: str = "") -> None:
        """Show how far the batch is now, and what its lines wait for, if that is out of the ordinary."""

    def say(self, text: str) -> None:
        """Show a sentence above the progress."""


class Rate:
    """Lines a second over the last seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def at(self, now: float, done: int) -> float:
        """Note how many lines are done now, and give the rate."""
        self._seen = [(at, lines) for at, lines in self._seen if now - at <= _RATE_OVER_S]
        self._seen.append((now, done))
        (began, before), elapsed_s = self._seen[0], now - self._seen[0][0]
        return (done - before) / elapsed_s if began < now and elapsed_s > 0 else 0.0


class _Silent:
    def update(self, record: BatchRecord, trouble: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Lines:
    """Progress for a log: one line every few seconds, and one at the end."""

    def __init__(self) -> None:
        self._rate = Rate()
        self._last = 0.0
        self._was_well = True

    def update(self, record: BatchRecord, trouble: str = "") -> None:
        now = time.monotonic()
        rate = self._rate.at(now, record.recorded)
        is_news = bool(trouble) and self._was_well
        self._was_well = not trouble
        if now - self._last >= _LINE_EVERY_S or is_news or record.batch.status.is_terminal:
            self._last = now
            how = f"{_counts(record)}, {rate:,.0f} lines/s, {_tokens(record)}"
            self.say(f"{record.batch.status}: {how}{trouble and f'; {trouble}'}")

    def say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _Bar:
    """Progress for a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None, counts="", rate="", tokens="", trouble="")
        self._rate = Rate()

    def update(self, record: BatchRecord, trouble: str = "") -> None:
        rate = self._rate.at(time.monotonic(), record.recorded)
        self._bar.update(
            self._task,
            description=_PHASES.get(record.batch.status, str(record.batch.status)),
            total=record.batch.request_counts.total or None,
            completed=record.recorded,
            counts=_counts(record),
            rate=f"{rate:,.0f} lines/s",
            tokens=_tokens(record),
            trouble=trouble,
        )

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)


_PHASES: Final = {Status.VALIDATING: "checking", Status.IN_PROGRESS: "running", Status.FINALIZING: "writing"}


@contextmanager
def follow(*, show: bool) -> Iterator[Shown]:
    """Give where to show a batch's progress; on standard error, or nowhere."""
    if not show:
        yield _Silent()
        return
    from rich.console import Console  # noqa: PLC0415 (slow to import: not before there is something to see)

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    with _progress(console) as bar:
        yield _Bar(bar)


def _progress(console: Console) -> Progress:
    from rich.progress import (  # noqa: PLC0415 (as above)
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415 (as above)

    class WithTrouble(Progress):
        """Shows below each bar what its lines wait for."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            yield from (Text(task.fields["trouble"], style="yellow") for task in self.tasks if task.fields["trouble"])

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TextColumn("[cyan]{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[tokens]}"),
    )
    return WithTrouble(*columns, console=console, refresh_per_second=5)


def _counts(record: BatchRecord) -> str:
    counts = record.batch.request_counts
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{record.recorded:,}/{counts.total:,} lines{failed}"


def _tokens(record: BatchRecord) -> str:
    usage = record.batch.usage
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
