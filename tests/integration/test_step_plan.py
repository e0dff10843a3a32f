"""The step plan: whatever happens to it, the same shards are laid once, or the batch fails and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord.broker import Step
from tests.integration.steps import (
    Message,
    Site,
    Sites,
    Trouble,
    at_each_write,
    dies_and_is_lost,
    dies_and_is_redelivered,
    is_overtaken,
    redis_fails,
)

if TYPE_CHECKING:
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey


@pytest.fixture
def sites(valkey: EmbeddedValkey, tmp_path: Path) -> Sites:
    return Sites(valkey.url, tmp_path)


async def planning(site: Site) -> Message:
    return await site.until(Step.PLAN)


@pytest.mark.parametrize("trouble", [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken])
async def test_trouble_after_any_write_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    assert await at_each_write(sites, planning, trouble) > 10
