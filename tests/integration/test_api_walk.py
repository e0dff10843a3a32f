"""Clients that do anything at any time while workers die: the batch ends, with every line once and in its place."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from batchord.contract import produced_file_id
from batchord.errors import StateUnavailableError
from batchord.lifecycle import Status
from batchord.state import keys
from tests.integration.api import Api, open_api
from tests.integration.steps import BATCH, BOUND_S, Site, Sites, line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.steps_worker import Worker

pytestmark = pytest.mark.timeout(120)

KINDS = ("ok", "bad", "large", "broken", "ok", "ok", "bad")
LINES = [line(f"{KINDS[n % 7]}-{n}", "two" if n % 3 == 1 else "one") for n in range(16)]
NAMES = [each["custom_id"] for each in LINES]
TURNS = 120


class Walk:
    """A site whose messages are lost, repeated and carried out in any order, while a client asks for anything."""

    def __init__(self, site: Site, api: Api) -> None:
        self.site, self.api, self.random = site, api, site.random
        self.asks = [self.cancel, self.pass_deadline, self.retry, self.retry_one, self.read, self.results, self.heal]

    async def turn(self) -> None:
        if self.random.random() < 0.3:
            await asyncio.gather(self.random.choice(self.asks)(), self.carry_out_some())
        else:
            await self.carry_out_some()

    async def carry_out_some(self) -> None:
        taken = [message for _ in range(self.random.choice([1, 1, 3])) if (message := self.site.take())]
        if not taken:
            await self.site.sweep()
        for message in taken:
            if self.random.random() < 0.15:
                self.site.put_back(message)
        kept = [message for message in taken if self.random.random() > 0.08]
        await asyncio.wait_for(asyncio.gather(*map(self.site.carry_out, kept)), BOUND_S)

    async def cancel(self) -> None:
        assert (await self.api.post(f"/v1/batches/{BATCH}/cancel")).status_code in {200, 409}

    async def pass_deadline(self) -> None:
        if not self.site.record().batch.status.is_terminal:
            self.site.pass_deadline()

    async def retry(self) -> None:
        answers = await asyncio.gather(*(self.api.post(f"/v1/batches/{BATCH}/retry") for _ in range(2)))
        assert [answer.status_code for answer in answers].count(200) <= 1
        assert {answer.status_code for answer in answers} <= {200, 400, 409}

    async def retry_one(self) -> None:
        chosen = {"custom_ids": [self.random.choice(NAMES)]}
        answer = await self.api.post(f"/v1/batches/{BATCH}/retry-requests", json=chosen)
        assert answer.status_code in {200, 400, 409}

    async def read(self) -> None:
        file_id = produced_file_id(BATCH, self.random.choice(["output", "errors"]), self.site.record().batch.round)
        answer = await self.api.get(f"/v1/files/{file_id}/content", params={"skip": 1})
        assert answer.status_code in {200, 404}

    async def results(self) -> None:
        answer = await self.api.get(f"/v1/batches/{BATCH}/results")
        assert [json.loads(row)["custom_id"] for row in answer.text.splitlines()] in ([], NAMES)

    async def heal(self) -> None:
        self.site.upstream.healed = self.random.random() < 0.5

    def trouble(self, worker: Worker) -> None:
        """Let a worker die, or lose Redis, after any of its writes."""

        async def after_write(_number: int) -> None:
            if self.random.random() < 0.02:
                await worker.die()
            if self.random.random() < 0.02:
                self.site.pass_time()
                raise StateUnavailableError("Connection lost, as asked for.")

        worker.after_write = after_write


@asynccontextmanager
async def walk_of(sites: Sites, seed: int) -> AsyncIterator[Walk]:
    async with (
        sites.new(seed=seed, window_lines=6, workers=2) as site,
        open_api(site.settings.redis_url, site.settings.data_dir) as api,
    ):
        site.submit(LINES)
        yield Walk(site, api)


def assert_every_line_is_there_once(site: Site) -> None:
    result: Any = site.result()
    others = [custom_id for custom_id, _ in result.unsuccessful]
    never_sent = [code for _, code in result.unsuccessful if code in {"batch_cancelled", "batch_expired"}]
    if result.counts["total"] and site.record().files:
        assert sorted([*result.succeeded, *others]) == sorted(NAMES)
    assert result.counts["completed"] == len(result.succeeded)
    assert result.counts["failed"] == len(others) - len(never_sent)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_troubled", [False, True])
async def test_whatever_clients_do_every_line_ends_once_and_is_sent_once_a_round(
    sites: Sites, seed: int, *, is_troubled: bool
) -> None:
    async with walk_of(sites, seed) as walk:
        site = walk.site
        if is_troubled:
            site.on_join = walk.trouble
            for worker in site.workers:
                walk.trouble(worker)
        for _ in range(TURNS):
            await walk.turn()
        site.on_join = lambda _: None
        for worker in site.workers:
            worker.after_write = None
        await site.drive()
        assert site.record().batch.status in {Status.COMPLETED, Status.CANCELLED, Status.EXPIRED}
        assert_every_line_is_there_once(site)
        if not is_troubled:
            assert max(Counter(site.upstream.calls).values(), default=0) <= site.record().batch.round + 1
        assert (site.messages(), [path for path in site.objects() if "/selection-" not in path]) == ([], [])
        left = {key for key in site.state_keys() if ":lease:" not in key}
        assert left - {keys.analytics(BATCH)} == {keys.batch(BATCH)}
