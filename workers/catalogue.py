"""What a worker asks each provider from time to time: which models it serves. Nothing waits for the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from batchord.errors import UnavailableError
from batchord.state import catalogue, keys, leases

if TYPE_CHECKING:
    from workers.context import Context
    from workers.providers import ProviderClient

_LOGGER = logging.getLogger(__name__)
_INTERVAL_S: Final = 300


async def keep_catalogue(context: Context) -> None:
    """Ask at intervals until cancelled, one worker of the fleet at a time."""
    while True:
        try:
            if await context.state.run(leases.take(keys.CATALOGUE_LEASE, context.worker, _INTERVAL_S)):
                await refresh(context)
        except UnavailableError as error:
            _LOGGER.warning("%s", error)
        except Exception:  # the list of models is no reason for a worker to stop
            _LOGGER.exception("The providers' models could not be listed; the next try is in %s s.", _INTERVAL_S)
        await asyncio.sleep(_INTERVAL_S)


async def refresh(context: Context) -> None:
    """Ask every provider, and note the lists of those that answered."""
    await asyncio.gather(*(_ask(context, name, client) for name, client in context.providers.items()))


async def _ask(context: Context, name: str, client: ProviderClient) -> None:
    if models := await client.models():
        await context.state.run(catalogue.write(name, models))
