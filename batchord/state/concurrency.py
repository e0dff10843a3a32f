"""The limit on requests in flight that the fleet finds for a provider. Not the rule that finds it (the workers')."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from batchord.state import keys
from batchord.state.calls import Call, Script, is_one

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPORT, _SETTLE = Script("concurrency_report", "_clock"), Script("concurrency_settle")

KEPT_S: Final = 6 * 3600
"""For how long a limit is remembered of which nobody makes use."""


class Sample(NamedTuple):
    """What was measured of a provider for a while, by one worker or by many together.

    `work` is what the good answers were worth, and `latency_s` how long they took in all; `busy_s` is the time of all
    requests in flight, and `room_s` that of all permits. Refused are requests for which the provider had no place
    (429, 503, 529): `throttled` with 429, the others among the `troubled`, as are those that failed. `kept` is which
    share of the permits was left when each refusal had cost one.
    """

    answers: int = 0
    work: float = 0.0
    latency_s: float = 0.0
    busy_s: float = 0.0
    room_s: float = 0.0
    throttled: int = 0
    troubled: int = 0
    kept: float = 1.0

    def plus(self, other: Sample) -> Sample:
        """Give both together."""
        sums: list[Any] = [mine + others for mine, others in zip(self, other, strict=True)]
        return Sample(*sums)._replace(kept=min(self.kept, other.kept))


class Turn(NamedTuple):
    """One worker's turn to find the next limit: from the course as it was left, and all samples since."""

    at: float
    course: bytes
    sample: Sample


Reported = tuple[int, Turn | None]
"""The limit, and the turn if it is this worker's."""


def report(provider: str, sample: Sample, pause_s: float, first: int) -> Call[Reported]:
    """Hand in a sample; give the limit, `first` where none was found yet, and the turn if it is this worker's.

    There is a turn at most every `pause_s`, and only where something was measured. A sample handed in twice, since
    the answer was lost, changes no mean.
    """
    return _REPORT.call([keys.concurrency(provider)], [pause_s, first, KEPT_S, *sample], _reported)


def settle(provider: str, turn: Turn, limit: int, course: bytes) -> Call[bool]:
    """Set the limit; False where the turn has passed on to another worker, and nothing changes."""
    return _SETTLE.call([keys.concurrency(provider)], [turn.at, limit, course, KEPT_S], is_one)


def _reported(answer: Sequence[Any]) -> Reported:
    limit, *turn = answer
    if not turn:
        return int(limit), None
    at, course, *sums = turn
    answers, work, latency_s, busy_s, room_s, throttled, troubled, kept = map(float, sums)
    sample = Sample(int(answers), work, latency_s, busy_s, room_s, int(throttled), int(troubled), kept)
    return int(limit), Turn(float(at), course, sample)
