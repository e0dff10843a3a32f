"""The providers file, taken over again when it has changed. Not for what a process does with its new routes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from batchord.errors import ConfigError
from batchord.providers_file import read_providers_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from batchord.routing import Routes

_LOGGER = logging.getLogger(__name__)
_LOOK_EVERY_S: Final = 1.0


class Watch:
    """Looks at a file whose routes are in force. With an environment, the keys' variables must be in it."""

    def __init__(self, path: Path, routes: Routes, environ: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._environ = environ
        self._in_force = list(routes.providers.values())
        self._read: tuple[int, ...] | None = ()
        self._seen: tuple[int, ...] | None = ()

    def look(self) -> Routes | None:
        """Give the routes once they are others than before; a file that is just being written is left until it rests.

        Raises:
            ConfigError: the file has changed and cannot be used, which is said once.
        """
        before, self._seen = self._seen, _stamp(self._path)
        if self._seen == self._read or self._seen != before:
            return None
        self._read = self._seen
        routes = read_providers_file(self._path, self._environ).routes
        providers = list(routes.providers.values())
        if providers == self._in_force:
            return None
        self._in_force = providers
        return routes


async def follow(watch: Watch, adopt: Callable[[Routes], None]) -> None:
    """Have new routes adopted within seconds, until cancelled; a file that cannot be used changes nothing."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        try:
            routes = await asyncio.to_thread(watch.look)
            if routes is not None:
                adopt(routes)
                _LOGGER.info("The providers file has changed, and is in force: %s.", "; ".join(routes.patterns))
        except ConfigError as error:
            _LOGGER.error("The providers file has changed and is refused; what was in force stays so.\n%s", error)  # noqa: TRY400 (no fault of ours)
        except Exception:  # whoever stopped following would go on by an old file for ever
            _LOGGER.exception("The providers file could not be taken over; what was in force stays so.")


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Give what changes with the file's content; None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
