"""Where the fleet's code is, and how its processes are started: as modules of a path of their own.

In a checkout the packages `app` and `workers` are beside `batchord`; in an installed wheel they are in
`batchord/_server`, which only processes that batchord starts have on their path.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import batchord
from batchord.errors import ConfigError

if TYPE_CHECKING:
    from batchord.settings import Settings

_PASSED = ("redis_url", "storage_url", "providers", "data_dir", "retention_s", "fleet_size")


def worker_argv() -> list[str]:
    """Give the command that runs one worker process."""
    return [sys.executable, "-m", "workers"]


def server_environment(settings: Settings) -> dict[str, str]:
    """Give the environment of the fleet's processes: this one's, the settings, and the path of their code.

    Raises:
        ConfigError: the server's dependencies are not installed.
    """
    if find_spec("httpx_aiohttp") is None:
        raise ConfigError('The fleet\'s dependencies are not installed; run pip install "batchord[server]".')
    path = [str(_server_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {f"BATCHORD_{name.upper()}": str(value) for name in _PASSED if (value := getattr(settings, name))}
    return {**os.environ, **given, "PYTHONPATH": os.pathsep.join(path)}


def _server_folder() -> Path:
    package = Path(batchord.__file__).parent
    installed = package / "_server"
    return installed if installed.is_dir() else package.parent
