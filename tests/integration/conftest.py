"""Where the tests of the steps take their sites from: one server, one place for the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.steps import Sites

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchord.embedded import EmbeddedValkey


@pytest.fixture
def sites(valkey: EmbeddedValkey) -> Iterator[Sites]:
    with Sites(valkey.url) as sites:
        yield sites
