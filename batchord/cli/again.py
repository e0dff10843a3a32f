"""Running the same command again after the end: which lines were never answered for good, and one output of all runs.

Every output and error file is in the input's order, so input and results are walked side by side, a line of each at a
time, however long they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.storage import CHUNK_BYTES
from batchord.validation import whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from batchord.batch import Batch

_TRANSIENT: Final = frozenset({408, 409, 429})
_SERVER_ERROR: Final = 500


class _Request(msgspec.Struct):
    custom_id: str


class _Response(msgspec.Struct):
    status_code: int


class _Outcome(msgspec.Struct):
    custom_id: str
    response: _Response | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input with its latest result: `raw` is the request's line, `result` the output or error line."""

    raw: bytes
    result: bytes | None
    succeeded: bool
    is_final: bool


def latest(input_path: Path, batches: Sequence[Batch]) -> Iterator[Line]:
    """Give each line of the input with its result in the latest of the batches that has one.

    A success or a refusal is final; what a provider may answer otherwise next time (no answer, 408, 409, 429, 5xx) and
    lines that ran out of time are not.
    """
    heads = [_Head(batch, succeeded=kind) for batch in reversed(batches) for kind in (True, False)]
    for raw in _input_lines(input_path):
        custom_id = msgspec.json.decode(raw, type=_Request).custom_id
        found = [head.take() for head in heads if head.custom_id == custom_id]
        yield Line(raw, *found[0]) if found else Line(raw, None, succeeded=False, is_final=False)


def unanswered(lines: Iterable[Line]) -> Iterator[bytes]:
    """Give the requests that have no final answer, as lines of an input file."""
    return (line.raw + b"\n" for line in lines if not line.is_final)


class _Head:
    """The foremost line not yet taken of one file of one batch."""

    def __init__(self, batch: Batch, *, succeeded: bool) -> None:
        record = batch.read().batch
        file_id = record.output_file_id if succeeded else record.error_file_id
        self._lines = batch.lines(file_id) if file_id else iter(())
        self._succeeded = succeeded
        self._advance()

    def take(self) -> tuple[bytes, bool, bool]:
        """Give the line, whether it is a success, and whether it is final; then go to the next one."""
        taken = (self._raw, self._succeeded, self._succeeded or self._is_refusal)
        self._advance()
        return taken

    def _advance(self) -> None:
        self._raw = next(self._lines, b"")
        outcome = msgspec.json.decode(self._raw, type=_Outcome) if self._raw else None
        self.custom_id = outcome.custom_id if outcome else None
        status = outcome.response.status_code if outcome and outcome.response else None
        self._is_refusal = status is not None and status < _SERVER_ERROR and status not in _TRANSIENT


def _input_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from whole_lines(iter(partial(file.read, CHUNK_BYTES), b""))
