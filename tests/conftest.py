"""What the tests share: a Valkey server, started once and empty for each test, and a provider's server."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import redis

from batchord.embedded import EmbeddedValkey
from tests.upstream import Upstream, run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator


_IN_MEMORY = Path("/dev/shm")  # noqa: S108  (where there is one, a write that waits for its disk costs nothing)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    with (
        TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as folder,
        EmbeddedValkey(Path(folder)) as server,
    ):
        yield server


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> EmbeddedValkey:
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        client.script_flush()  # a cached script would hide a missing NOSCRIPT case
        client.config_set("appendfsync", "always")  # or each WAITAOF takes a turn of the server's clock, 0.1 s
    return valkey_server


@pytest.fixture
def gone() -> Iterator[str]:
    """The base URL of a server that is not there, and whose port nobody else gets."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with run_upstream() as server:
        yield server
