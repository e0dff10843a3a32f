"""The lease of a step: held for as long as the step runs, however long that is, and not for longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.integration.steps import came
from workers.lease import alone

if TYPE_CHECKING:
    from tests.integration.steps import Sites

KEY = "batchord:lease:test"
LIFE_S = 0.3


async def test_a_step_that_takes_longer_than_its_lease_lives_stays_alone(sites: Sites) -> None:
    async with sites.new(workers=2, claim_s=LIFE_S) as site:
        first, second = (worker.context for worker in site.workers)
        async with alone(first, KEY) as held:
            assert held is not None
            over = time.monotonic() + 3 * LIFE_S
            await came(lambda: time.monotonic() > over)
            async with alone(second, KEY) as other:
                assert other is None
        async with alone(second, KEY) as then:
            assert then is not None
        assert not site.redis.exists(KEY)


async def test_a_lease_that_nobody_renews_is_soon_free(sites: Sites) -> None:
    async with sites.new(workers=1, claim_s=LIFE_S) as site:
        site.redis.set(KEY, "a run that was killed", px=int(LIFE_S * 1000))
        await came(lambda: not site.redis.exists(KEY))
        async with alone(site.workers[0].context, KEY) as held:
            assert held is not None
            assert 0 < site.redis.pttl(KEY) <= LIFE_S * 1000
