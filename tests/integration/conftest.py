"""What several integration tests share: sites for the steps, and an empty folder for a run of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.steps import Sites

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey


@pytest.fixture
def sites(valkey: EmbeddedValkey) -> Iterator[Sites]:
    with Sites(valkey.url) as sites:
        yield sites


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder
