"""What a worker process does at intervals: says that it lives, keeps its claims, takes its share, sends the sweep."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from batchord.broker import Step
from batchord.errors import UnavailableError
from batchord.state import keys, leases
from workers.catalogue import keep_catalogue
from workers.permits import share

if TYPE_CHECKING:
    from workers.context import Context

_LOGGER = logging.getLogger(__name__)
_BEATS_A_CLAIM = 4


async def stay_alive(context: Context) -> None:
    """Beat and keep the list of models until cancelled."""
    await asyncio.gather(_keep_beating(context), keep_catalogue(context))


async def _keep_beating(context: Context) -> None:
    """A beat that Redis does not answer is made up for by the next one."""
    interval_s = min(context.settings.claim_s / _BEATS_A_CLAIM, context.settings.sweep_interval_s)
    while True:
        try:
            await beat(context)
        except UnavailableError as error:
            _LOGGER.warning("%s", error)
        except Exception:  # a worker that stopped beating would have its lines sent by others too
            _LOGGER.exception("A beat failed; the next one tries again.")
        await asyncio.sleep(interval_s)


async def beat(context: Context) -> None:
    """Do all that is done at intervals, once."""
    now = time.time()
    await context.state.run(leases.beat(context.worker, now + context.settings.claim_s))
    await context.desk.renew()
    _take_share(context, len(await context.state.run(leases.alive(now))))
    if await context.state.run(leases.take(keys.SWEEP_LEASE, context.worker, context.settings.sweep_interval_s)):
        await context.send(Step.SWEEP)


def _take_share(context: Context, workers: int) -> None:
    """A provider's limit is the fleet's: each living worker takes an equal part of it.

    `fleet_size` says how many there will be at least, so that the first one does not begin with the part of all.
    """
    workers = max(workers, context.settings.fleet_size)
    for name, provider in context.routes.providers.items():
        context.resize(name, share(provider.max_concurrency, workers))
