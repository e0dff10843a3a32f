"""The hash of what a batch's lines took and cost, as `record` counts it. What it amounts to is `service.analytics`.

A field is `provider|model|count`. Neither a provider's name nor a count's has a bar, so a model may have any character;
the empty one stands for lines whose model is not known, and for all models past the first some hundred.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from batchord.state import keys
from batchord.state.calls import Call, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

_LATENCY: Final = "latency:"
_TTFB: Final = "ttfb:"


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of lines: tokens, outcomes, `cost` in nano-dollars and `unpriced` answers; times by bucket."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)
    ttfbs: Counter[int] = field(default_factory=Counter)

    def note(self, name: str, count: int) -> None:
        """Add a count by its name in the hash."""
        if name.startswith(_LATENCY):
            self.latencies[int(name.removeprefix(_LATENCY))] += count
        elif name.startswith(_TTFB):
            self.ttfbs[int(name.removeprefix(_TTFB))] += count
        else:
            self.counts[name] += count

    def add(self, other: Tally) -> None:
        """Add all that another has counted."""
        self.counts.update(other.counts)
        self.latencies.update(other.latencies)
        self.ttfbs.update(other.ttfbs)


def read(batch_id: str) -> Call[Mapping[tuple[str, str], Tally]]:
    """Read the tallies of a batch by provider and model."""
    return Call(("HGETALL", keys.analytics(batch_id)), _tallies)


def _tallies(answer: Any) -> Mapping[tuple[str, str], Tally]:
    tallies: dict[tuple[str, str], Tally] = {}
    for name, count in mapping(answer).items():
        provider, _, rest = name.partition("|")
        model, _, counted = rest.rpartition("|")
        tallies.setdefault((provider, model), Tally()).note(counted, int(count))
    return tallies
