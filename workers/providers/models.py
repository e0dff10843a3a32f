"""The models that a server says it serves. Not what they are called in the configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx2

from workers.providers.answers import model_names
from workers.providers.seam import ProviderError

if TYPE_CHECKING:
    from workers.providers.connections import Connections

_TIMEOUT_S: Final = 10


async def listed_models(connections: Connections, target: bytes) -> list[str]:
    """Ask for the list at a path; a server that gives none in time lists nothing."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await connections.get(target)
    except (ProviderError, TimeoutError):
        return []
    return model_names(answer.body) if answer.status_code == httpx2.codes.OK else []
