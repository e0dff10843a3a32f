"""What a worker process does at intervals: says that it lives, keeps its claims, sends the sweep."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from batchord.broker import Step
from batchord.errors import StateUnavailableError, UnavailableError
from batchord.state import keys, leases
from workers.catalogue import keep_catalogue
from workers.listening import keep_conditions
from workers.reload import keep_routes
from workers.reporting import keep_reports
from workers.shares import keep_shares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workers.context import Context

_LOGGER = logging.getLogger(__name__)
_BEATS_A_CLAIM = 6  # a claim outlives a silence of a third, the beat before it and a slow one after


async def stay_alive(context: Context) -> None:
    """Beat, sweep, take part in the sharing and keep the list of models until cancelled."""
    beating = _at_intervals(lambda: beat(context), context.settings.claim_s / _BEATS_A_CLAIM)
    sweeping = _at_intervals(lambda: _send_sweep(context), context.settings.sweep_interval_s)
    hearing = keep_conditions(context.conditions, context.state)
    reporting = keep_reports(context.reports, context.state)
    await asyncio.gather(
        beating, sweeping, keep_shares(context), keep_catalogue(context), hearing, reporting, keep_routes(context)
    )


async def _at_intervals(act: Callable[[], Awaitable[None]], interval_s: float) -> None:
    """Do something until cancelled; what Redis does not answer is made up for by the next time."""
    while True:
        try:
            await act()
        except UnavailableError as error:
            _LOGGER.warning("%s", error)
        except Exception:  # a worker that stopped beating would have its lines sent by others too
            _LOGGER.exception("A duty of this worker failed; the next time it is tried again.")
        await asyncio.sleep(interval_s)


async def beat(context: Context) -> None:
    """Say that this worker lives; by a connection of which nothing comes it would be thought dead."""
    patience_s = context.settings.claim_s / 4
    try:
        async with asyncio.timeout(patience_s):
            await context.desk.beat()
    except TimeoutError:
        raise StateUnavailableError(f"Redis did not answer a beat within {patience_s:g} s.") from None


async def _send_sweep(context: Context) -> None:
    """Ask for a sweep, unless another worker did just now."""
    if await context.state.run(leases.take(keys.SWEEP_LEASE, context.worker, context.settings.sweep_interval_s)):
        await context.send(Step.SWEEP)
