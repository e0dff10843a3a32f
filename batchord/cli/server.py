"""Where the fleet's code is, and how its processes are started: as modules of a path of their own.

In a checkout the packages `app` and `workers` are beside `batchord`; in an installed wheel they are in
`batchord/_server`, which only processes that batchord starts have on their path.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import batchord
from batchord.errors import ConfigError
from batchord.listener import LISTENER_ENV

if TYPE_CHECKING:
    import socket

    from batchord.settings import Settings

_PASSED = ("redis_url", "providers", "data_dir", "retention_s", "fleet_size", "log_level")
_MEMORY: Final = {"MALLOC_ARENA_MAX": "2"}
"""For glibc, which else gives each thread of the storage's an arena: 6 MB less a worker, at the same speed."""


def worker_argv() -> list[str]:
    """Give the command that runs one worker process."""
    return [sys.executable, "-m", "workers"]


def api_argv() -> list[str]:
    """Give the command that runs one process of the API."""
    return [sys.executable, "-m", "app"]


def server_environment(settings: Settings) -> dict[str, str]:
    """Give the environment of the fleet's processes: this one's, the settings, and the path of their code.

    Raises:
        ConfigError: the server's dependencies are not installed.
    """
    if find_spec("httptools") is None:
        raise ConfigError('The fleet\'s dependencies are not installed; run pip install "batchord[server]".')
    path = [str(_server_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {f"BATCHORD_{name.upper()}": str(value) for name in _PASSED if (value := getattr(settings, name))}
    # These also where nothing says so: this environment may say another.
    given["BATCHORD_GIVE_UP_AFTER_S"] = str(settings.give_up_after_s or "")
    given["BATCHORD_STORAGE_URL"] = settings.blobs_url
    return {**_MEMORY, **os.environ, **given, "PYTHONPATH": os.pathsep.join(path)}


def listening_environment(listener: socket.socket) -> dict[str, str]:
    """Give what the API's process is told besides: the socket that it inherits, and where that listens."""
    host, port = listener.getsockname()[:2]
    return {LISTENER_ENV: str(listener.fileno()), "BATCHORD_HOST": host, "BATCHORD_PORT": str(port)}


def _server_folder() -> Path:
    package = Path(batchord.__file__).parent
    installed = package / "_server"
    return installed if installed.is_dir() else package.parent
