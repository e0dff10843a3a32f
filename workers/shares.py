"""This process' part of each provider's limit, taken from and given back to the other workers while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

from batchord.errors import UnavailableError
from batchord.state import shares
from batchord.state.shares import Ask

if TYPE_CHECKING:
    from workers.context import Context

_LOGGER = logging.getLogger(__name__)
_SOON_S: Final = 0.25
_INTERVAL_S: Final = 2.0


async def keep_shares(context: Context) -> None:
    """Take part in the sharing until cancelled. While Redis does not answer, the parts stay as they are."""
    while True:
        try:
            is_settled = await take_shares(context)
        except UnavailableError:
            is_settled = True  # for now; the beat says in the log that Redis is away
        except Exception:  # a worker that stopped taking part would lose its permits to the others, or keep them all
            is_settled = True
            _LOGGER.exception("Taking a share failed; it is tried again.")
        await asyncio.sleep(_INTERVAL_S if is_settled else _SOON_S)


async def take_shares(context: Context) -> bool:
    """Take the parts once; False while this process has too few yet, or may still hold more than it should.

    What it may hold until it hears the answer counts as held, so that a smaller part is others' from the next time on.
    A worker that drains wants none, and lets go of what it holds as its requests end.
    """
    held = {name: permits.most_held for name, permits in context.permits.items()}
    limits = {name: 0 if context.draining.is_set() else context.routes.providers[name].most_in_flight for name in held}
    asks = [Ask(name, held[name], limits[name]) for name in held]
    call = shares.take(context.worker, asks, context.settings.claim_s, context.settings.fleet_size)
    parts = await context.state.run(call)
    for name, part in zip(held, parts, strict=True):
        context.resize(name, part.now)
    if any(part.now < part.due for part in parts):
        await _bury(context)
    return all(held[name] <= part.now >= part.due for name, part in zip(held, parts, strict=True))


async def _bury(context: Context) -> None:
    """Free the parts of this host's dead, so that who takes the place of a killed process need not wait for their end.

    Nobody else can know of a death before the time that a part counts is over.
    """
    held = await context.state.run(shares.holders())
    if dead := [holder for holder in held if _is_dead(holder.split(" ", 1)[1], context.worker)]:
        await context.state.run(shares.drop(dead))


def _is_dead(worker: str, own: str) -> bool:
    """Whether another worker, named `host-pid-random`, was a process of this host and runs no more."""
    (host, pid, _), (own_host, own_pid, _) = worker.rsplit("-", 2), own.rsplit("-", 2)
    return worker != own and host == own_host and (pid == own_pid or not _runs(int(pid)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
