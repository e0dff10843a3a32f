"""What a worker hears of its providers' conditions from Redis: each change at once, and all of them now and then."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.errors import UnavailableError
from batchord.state import conditions as fleet
from batchord.state.keys import CONDITIONS_CHANNEL
from batchord.state.signals import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.state.connection import State
    from workers.condition import Condition

_LOGGER = logging.getLogger(__name__)
_LOOK_S: Final = 2.0


async def keep_conditions(conditions: Mapping[str, Condition], state: State) -> None:
    """Hear of every change until cancelled; what was missed is read within 2 s. While Redis is away, all stays."""
    try:
        await asyncio.gather(_listen(conditions, state), _keep_looking(conditions, state))
    finally:
        for condition in conditions.values():
            condition.close()


async def _listen(conditions: Mapping[str, Condition], state: State) -> None:
    async with aclosing(messages(state, CONDITIONS_CHANNEL)) as heard:
        async for message in heard:
            if message is None:
                await _look_at_all(conditions, state)
            else:
                _hear(conditions, message)


def _hear(conditions: Mapping[str, Condition], message: bytes) -> None:
    with suppress(msgspec.MsgspecError):  # from a fleet of another version; what it means is read soon
        known = fleet.decode(message)
        if known.provider in conditions:
            conditions[known.provider].hear(known)


async def _keep_looking(conditions: Mapping[str, Condition], state: State) -> None:
    while True:
        await _look_at_all(conditions, state)
        await asyncio.sleep(_LOOK_S)


async def _look_at_all(conditions: Mapping[str, Condition], state: State) -> None:
    try:
        for known in await state.run(fleet.read(list(conditions))):
            conditions[known.provider].keep_probe()
            conditions[known.provider].hear(known)
    except UnavailableError:
        return  # the beat says in the log that Redis is away
    except Exception:  # a worker that stopped looking would never hear that a pause is over
        _LOGGER.exception("The providers' conditions could not be read; they are read again.")
