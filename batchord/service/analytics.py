"""What a batch's requests took and cost, in all and by model, at any time while it runs and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batchord.histogram import percentile
from batchord.prices import NANOS_PER_DOLLAR, in_dollars
from batchord.state import analytics
from batchord.state.analytics import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchord.service.backend import Backend
    from batchord.state.batches import BatchRecord

_OUTCOMES: Final = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of the times of answered requests, in milliseconds and within 2.5 %; None where none was answered."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What some requests took. A line that a retry runs again is one more request, and what it took is added.

    `requests` counts outcomes, those without an answer among them, but not the lines of shards that were never opened
    since the batch was stopped before; tokens, times and costs are of the answers.
    `duplicates` of them took the answer of another line that asked for the same, and took and cost nothing.
    Times are of the request that was answered, without waits and failed attempts before it. `cost` is in dollars, and
    None where an answer has no known price; `priced_cost` is the sum of those that have one.
    """

    requests: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    duplicates: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int
    latency_ms: Percentiles
    time_to_first_byte_ms: Percentiles
    cost: float | None
    priced_cost: float


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """The figures of one model at one provider; an empty name stands for the models past the first some hundred."""

    provider: str
    model: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Analytics:
    """A batch's figures in all, and by provider and model.

    `late_answers` are in none of them: their workers had stood still or been cut off, others had taken their lines
    over, and so they were dropped; the provider may bill them. At `max_cost` dollars, if any, nothing more is sent.
    """

    batch_id: str
    late_answers: int
    total: Figures
    models: Sequence[ModelFigures]
    max_cost: float | None = None
    max_cost_reached: bool = False


async def of_batch(backend: Backend, record: BatchRecord) -> Analytics:
    """Give the analytics of a batch."""
    return (await of_batches(backend, [record]))[0]


async def of_batches(backend: Backend, records: Sequence[BatchRecord]) -> list[Analytics]:
    """Give the analytics of some batches in one round trip."""
    batch_ids = [record.batch.id for record in records]
    read = await backend.state.run_all([analytics.read(batch_id) for batch_id in batch_ids])
    return [_analytics(record, tallies) for record, tallies in zip(records, read, strict=True)]


def _analytics(record: BatchRecord, tallies: Mapping[tuple[str, str], Tally]) -> Analytics:
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    models = [ModelFigures(provider, model, _figures(tallies[provider, model])) for provider, model in sorted(tallies)]
    max_cost = in_dollars(record.batch.max_cost_nanos)
    return Analytics(record.batch.id, record.late, _figures(total), models, max_cost, record.is_over_budget)


def _figures(tally: Tally) -> Figures:
    counts = tally.counts
    priced_cost = counts["cost"] / NANOS_PER_DOLLAR
    return Figures(
        requests=sum(counts[outcome] for outcome in _OUTCOMES),
        succeeded=counts["completed"],
        failed=counts["failed"],
        cancelled=counts["cancelled"],
        expired=counts["expired"],
        duplicates=counts["duplicates"],
        prompt_tokens=counts["input_tokens"],
        cached_tokens=counts["cached_tokens"],
        completion_tokens=counts["output_tokens"],
        reasoning_tokens=counts["reasoning_tokens"],
        total_tokens=counts["total_tokens"],
        latency_ms=Percentiles(percentile(tally.latencies, 50), percentile(tally.latencies, 95)),
        time_to_first_byte_ms=Percentiles(percentile(tally.ttfbs, 50), percentile(tally.ttfbs, 95)),
        cost=None if counts["unpriced"] else priced_cost,
        priced_cost=priced_cost,
    )
