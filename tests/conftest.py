"""What the tests share: a Valkey server, started once and empty for each test, and a provider's server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from batchord.embedded import EmbeddedValkey
from tests.upstream import Upstream, run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> EmbeddedValkey:
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        client.script_flush()  # a cached script would hide a missing NOSCRIPT case
    return valkey_server


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with run_upstream() as server:
        yield server
