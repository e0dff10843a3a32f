"""The server's record of unacknowledged messages, and the scripts that change it. Not for what this process holds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

SWEEP_LIMIT = 1000
"""Most messages that one script restores, so that none holds the server for more than a few milliseconds."""


@cache
def script(name: str) -> str:
    """The text of `lua/NAME.lua`."""
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class Unacked:
    """The unacked hash and its index, by way of one client. Every method is safe to repeat."""

    def __init__(self, client: redis.Redis, unacked_key: str, index_key: str) -> None:
        self._client = client
        self._keys = [unacked_key, index_key]

    def extend(self, acked: Sequence[str], tags: Sequence[str]) -> None:
        """Acknowledge `acked`, and renew the sign of life of `tags`."""
        self._run("extend", self._keys, len(acked), *acked, *tags)

    def expired(self, visibility_timeout_s: float) -> list[str]:
        """The tags without a sign of life for so long; a few, and none soon after an outage."""
        _, index_key = self._keys
        tags = self._run("expired", [index_key, f"{index_key}_since"], visibility_timeout_s, SWEEP_LIMIT)
        return [tag.decode() for tag in tags]

    def restore(self, tags: Sequence[str], min_age_s: float = 0) -> list[str]:
        """Put these back to their queues, if silent for `min_age_s`; returns those that only kombu can route."""
        foreign: list[bytes] = []
        for start in range(0, len(tags), SWEEP_LIMIT):
            foreign += self._run("restore", self._keys, min_age_s, *tags[start : start + SWEEP_LIMIT])
        return [tag.decode() for tag in foreign]

    def _run(self, name: str, keys: list[str], *args: str | float) -> Any:
        return self._client.register_script(script(name))(keys=keys, args=args)
