"""A client that follows a batch's files while it runs: line by line, it ends with exactly the final files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import produced_file_id
from tests.integration.api import Api, open_api
from tests.integration.steps import BATCH, Site, Sites, line

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(120)

KINDS = ("ok", "bad", "large", "broken", "ok", "flaky", "ok")


def lines_of_all_kinds(lines: int) -> list[dict[str, Any]]:
    """Give lines of two providers in uneven turns, with every kind of answer."""
    return [line(f"{KINDS[number % 7]}-{number}", "two" if number % 5 in {1, 2} else "one") for number in range(lines)]


@dataclass
class Follower:
    """A client that asks again and again for what comes after the last line that it has."""

    api: Api
    path: str
    limit: int | None
    content: bytes = b""
    skip: int = 0
    is_whole: bool = False
    growths: list[int] = field(default_factory=list)

    async def ask(self) -> None:
        query = {"skip": self.skip} | ({} if self.limit is None else {"limit": self.limit})
        answer = await self.api.get(self.path, params=query)
        if answer.status_code != 200:
            assert answer.status_code == 404
            return
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert int(answer.headers["x-last-line"]) == self.skip + answer.content.count(b"\n")
        self.content += answer.content
        self.skip = int(answer.headers["x-last-line"])
        self.is_whole = answer.headers["x-incomplete"] == "false"
        self.growths.append(len(answer.content))

    async def ask_for_the_rest(self) -> None:
        for _ in range(100):
            if self.is_whole:
                return
            await self.ask()


def followers_of(api: Api, site: Site, round_: int) -> dict[str, Follower]:
    limits = (None, 1, 4)
    return {
        part: Follower(api, f"/v1/files/{produced_file_id(BATCH, part, round_)}/content", site.random.choice(limits))
        for part in ("output", "errors")
    }


def nobody(_site: Site) -> None:
    """Let the batch run to its end."""


@pytest.mark.parametrize("is_retry", [False, True])
@pytest.mark.parametrize("stop", [nobody, Site.cancel, Site.pass_deadline])
@pytest.mark.parametrize("seed", range(2))
async def test_who_follows_the_files_of_a_running_batch_ends_with_the_final_ones(
    sites: Sites, seed: int, stop: Callable[[Site], object], *, is_retry: bool
) -> None:
    async with (
        sites.new(seed=seed, window_lines=9, workers=2) as site,
        open_api(site.settings.redis_url, site.settings.data_dir) as api,
    ):
        site.submit(lines_of_all_kinds(28))
        if is_retry:
            await site.drive()
            site.upstream.healed = True
            assert (await api.post(f"/v1/batches/{BATCH}/retry")).status_code == 200
        followers = followers_of(api, site, int(is_retry))
        await site.carry_out(await site.until(Step.PLAN))
        stop_at, carried_out = site.random.randrange(20, 30), 0
        while message := site.take():
            carried_out += 1
            if carried_out == stop_at:
                stop(site)
            await site.carry_out(message)
            if site.random.random() < 0.5:
                await followers[site.random.choice(["output", "errors"])].ask()
        assert site.record().batch.status.is_terminal
        assert sum(bool(growth) for growth in followers["output"].growths) > 1
        for follower in followers.values():
            await follower.ask_for_the_rest()
        result = site.result()
        assert followers["output"].content == result.output
        assert followers["errors"].content == (result.errors or b"")
