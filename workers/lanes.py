"""What has a limit of its own on requests in flight: each provider, and the models that its file limits apart. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchord.routing import Provider


def lanes(provider: Provider) -> dict[str, int]:
    """Give a provider's lanes, each with the most that the fleet may have in flight there."""
    stated = {_lane(provider, glob): limits.max_concurrency for glob, limits in provider.limits.items()}
    return {provider.name: provider.most_in_flight} | {lane: most for lane, most in stated.items() if most}


def lane_of(provider: Provider, model: str) -> str | None:
    """Give the lane of a model, by the first glob that matches; None where its glob, or it, has no limit of its own."""
    for glob, limits in provider.limits.items():
        if fnmatchcase(model, glob):
            return _lane(provider, glob) if limits.max_concurrency else None
    return None


def _lane(provider: Provider, glob: str) -> str:
    return f"{provider.name}/{glob}"
