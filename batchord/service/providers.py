"""How the providers are at the moment: their state, their limits, what the workers send them. Nothing decides by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from batchord.errors import NotFoundError
from batchord.standing import STATES, Word, trouble
from batchord.state import reports, shares

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchord.routing import Provider, Routes
    from batchord.service.backend import Backend
    from batchord.state.connection import BlockingState
    from batchord.state.reports import ProviderView


class ProviderLimits(BaseModel):
    """Limits of the whole fleet; null is none."""

    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class ProviderStanding(BaseModel):
    """A provider as it is now. Times are epoch seconds; counts are since the living workers started.

    `state`: `ok`; `paused`, as it asked for; `open`, it fails and is left alone; `probing`, one request tries it again;
    `silent`, it has never answered. `message` says why in words, and `waits_until` until when nothing is sent.
    `waiting` lines wait in workers for it, `rate_per_minute` requests were sent lately and answered with
    `token_rate_per_minute` tokens, `refused` ones were answered 429, `failed` ones 5xx or not at all. `limits` are what
    the providers file states, `in_force` what holds at the moment, be it stated or learned.
    """

    id: str
    object: Literal["provider"] = "provider"
    kind: str | None
    models: tuple[str, ...]
    state: Word
    message: str | None
    waits_until: float | None
    failing_since: float | None
    answered_at: float | None
    workers: int
    in_flight: int
    permits: int
    permits_left: int
    waiting: int
    rate_per_minute: float
    token_rate_per_minute: float
    sent: int
    refused: int
    failed: int
    limits: ProviderLimits
    in_force: ProviderLimits


async def listing(backend: Backend) -> list[ProviderStanding]:
    """Give every provider that is configured here, and those that living workers serve besides."""
    names = _names(backend.routes, await backend.state.run(shares.holders()))
    views = await backend.state.run(reports.read(*names))
    return [_standing(view, backend.routes.providers.get(view.name)) for view in views]


async def find(backend: Backend, name: str) -> ProviderStanding:
    """Give one provider of the listing.

    Raises:
        NotFoundError: there is none of this name.
    """
    for standing in await listing(backend):
        if standing.id == name:
            return standing
    raise NotFoundError(f"The provider '{name:.200}' does not exist", "provider", "provider_not_found")


def read(state: BlockingState, routes: Routes) -> list[ProviderStanding]:
    """Give what `listing` does, to programs without an event loop."""
    names = _names(routes, state.run(shares.holders()))
    return [_standing(view, routes.providers.get(view.name)) for view in state.run(reports.read(*names))]


def _names(routes: Routes, holders: Iterable[str]) -> list[str]:
    """Give the providers' names: in the configuration's order, then those of which only workers know."""
    served = {holder.split(" ", 1)[0].split("/", 1)[0] for holder in holders}
    return [*routes.providers, *sorted(served - routes.providers.keys())]


def _standing(view: ProviderView, config: Provider | None) -> ProviderStanding:
    condition = view.condition
    stated = ProviderLimits.model_validate(config, from_attributes=True) if config else ProviderLimits()
    return ProviderStanding(
        id=view.name,
        kind=config.kind if config else None,
        models=config.models if config else (),
        state=STATES[condition.health],
        message=trouble(view),
        waits_until=condition.now + condition.wait_s if condition.wait_s else None,
        failing_since=condition.failing_since or None,
        answered_at=condition.answered_at or None,
        workers=view.workers,
        in_flight=view.in_flight,
        permits=view.permits,
        permits_left=max(0, view.permits - view.in_flight),
        waiting=view.waiting,
        rate_per_minute=round(view.rate_per_minute, 1),
        token_rate_per_minute=round(view.token_rate_per_minute, 1),
        sent=view.sent,
        refused=view.refused,
        failed=view.failed,
        limits=stated,
        in_force=_in_force(view, stated),
    )


def _in_force(view: ProviderView, stated: ProviderLimits) -> ProviderLimits:
    """Give what the workers go by; without any, it is what is stated."""
    if not view.reports:
        return stated
    requests, tokens = view.requests_per_minute, view.tokens_per_minute
    return ProviderLimits(
        max_concurrency=view.permits,
        requests_per_minute=None if requests is None else round(requests),
        tokens_per_minute=None if tokens is None else round(tokens),
    )
