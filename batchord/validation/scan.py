"""The scan of a whole input file: feeds it through the rules of a line and adds those between lines. It does no I/O.

Between lines, after a line's own rules, in this order: custom_id unique among the lines that pass their own rules;
a provider for the model; one model a batch where the provider wants it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from batchord.contract import BatchProblem
from batchord.validation import problems
from batchord.validation.line import Accepted, parse_line, with_model
from batchord.validation.seen import Seen
from batchord.validation.splitter import MAX_LINE_BYTES, Line, LineSplitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from batchord.validation.problems import ProblemError

_PIECE_BYTES: Final = 64 * 1024
"""A chunk is taken by pieces, so that one of very short lines does not become millions of objects at once."""


class RouteLike(Protocol):
    """Where a line goes, as `batchord.routing` says it; `model` is the name without a provider's prefix."""

    @property
    def provider(self) -> str:
        """The provider's name."""

    @property
    def model(self) -> str:
        """The model's name there."""

    @property
    def single_model(self) -> bool:
        """Whether the provider takes only one model a batch."""

    @property
    def is_named(self) -> bool:
        """Whether the line itself names the provider."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan found. The file may run if there is no problem.

    `lines` counts those that are not blank; `endpoint` is the batch's, None if it was not given and no line is good;
    `rest` is the last line, accepted, where the file does not end in a newline; `problems` are the first ones in line
    order, with problems of the file as a whole before them, and `more` says how many are not among them.
    """

    lines: int
    endpoint: str | None
    rest: list[Accepted]
    problems: tuple[BatchProblem, ...]
    more: int


class Scan:
    """A scan under way: feed it the file's chunks, then finish. A context manager, since it holds a temporary file.

    Without an `endpoint` the first good line sets it. Without a `route` every model passes, and no provider is named;
    `patterns` are what the operator configured, to be shown where a route is missing; `rule` is one more, of the batch.
    From the first problem on, nothing is accepted any more, since nothing of such a file is sent; the scan goes on to
    find the others.
    """

    def __init__(  # noqa: PLR0913  the limits are settings, each named by its caller
        self,
        endpoint: str | None = None,
        route: Callable[[str], RouteLike | None] | None = None,
        *,
        patterns: Sequence[str] = (),
        rule: Callable[[Accepted], ProblemError | None] | None = None,
        max_lines: int = 1_000_000,
        max_problems: int = 100,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._endpoint = endpoint
        self._route = route
        self._patterns = patterns
        self._rule = rule
        self._max_lines = max_lines
        self._max_problems = max_problems
        self._max_line_bytes = max_line_bytes
        self._splitter = LineSplitter(max_line_bytes)
        self._seen = Seen[int]()
        self._single_models: dict[str, str] = {}
        self._lines = 0
        self._problems: list[BatchProblem] = []
        self._refused = 0

    @property
    def full(self) -> bool:
        """Whether the file has too many lines, so that there is no need to read on."""
        return self._lines > self._max_lines

    def feed(self, chunk: bytes) -> list[Accepted]:
        """Give the accepted ones of the lines that end in this chunk.

        Raises:
            StorageUnavailableError: there is no room for temporary files.
        """
        pieces = (chunk[start : start + _PIECE_BYTES] for start in range(0, len(chunk), _PIECE_BYTES))
        return [accepted for piece in pieces for accepted in self._accepted(self._splitter.feed(piece))]

    def finish(self) -> ScanResult:
        """Take the last line, if the file does not end in a newline, and give what was found.

        Raises:
            StorageUnavailableError: there is no room for temporary files.
        """
        rest = list(self._accepted(self._splitter.close()))
        found = [*self._problems_of_file(), *self._problems]
        listed, more = found[: self._max_problems], self._refused - len(self._problems)
        more += len(found) - len(listed)
        if more:
            listed[-1] = problems.with_more(listed[-1], more)
        return ScanResult(min(self._lines, self._max_lines), self._endpoint, rest, tuple(listed), more)

    def close(self) -> None:
        """Free the temporary file."""
        self._seen.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _problems_of_file(self) -> list[BatchProblem]:
        if self.full:
            return [problems.too_many_tasks(self._max_lines).at(None)]
        return [] if self._lines else [problems.empty_file().at(None)]

    def _accepted(self, lines: list[Line]) -> Iterator[Accepted]:
        for line in lines:
            self._lines += 1
            if self.full:
                return
            verdict = self._judge(line)
            if isinstance(verdict, BatchProblem):
                self._note(verdict)
            elif not self._refused:
                yield verdict

    def _note(self, problem: BatchProblem) -> None:
        self._refused += 1
        if self._refused <= self._max_problems:  # lines come in order, so these are the lowest
            self._problems.append(problem)

    def _judge(self, line: Line) -> Accepted | BatchProblem:
        if line.raw is None:
            return problems.line_too_long(self._max_line_bytes).at(line.number)
        accepted = parse_line(line.number, line.raw, self._endpoint)
        if isinstance(accepted, BatchProblem):
            return accepted
        first_line = self._seen.first(accepted.custom_id.encode(), accepted.line)
        if first_line is not None:
            return problems.duplicate_custom_id(accepted.custom_id, first_line).at(accepted.line)
        self._endpoint = accepted.url
        return self._routed(accepted, self._route) if self._route else accepted

    def _routed(self, accepted: Accepted, route: Callable[[str], RouteLike | None]) -> Accepted | BatchProblem:
        way = route(accepted.model)
        if way is None:
            return problems.model_not_found(accepted.model, self._patterns).at(accepted.line)
        if way.single_model:
            first_model = self._single_models.setdefault(way.provider, way.model)
            if way.model != first_model:
                return problems.mismatched_model(accepted.model, first_model, way.provider).at(accepted.line)
        routed = directed(accepted, way)
        problem = self._rule(routed) if self._rule else None
        return problem.at(accepted.line) if problem else routed


def directed(accepted: Accepted, way: RouteLike) -> Accepted:
    """Give a line as it goes to a provider, which may know the model by another name."""
    body = accepted.body if way.model == accepted.model else with_model(accepted.body, way.model)
    return msgspec.structs.replace(accepted, provider=way.provider, model=way.model, body=body, is_named=way.is_named)
