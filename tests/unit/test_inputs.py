from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import Raw

from batchord.errors import BlobNotFoundError
from batchord.shard_file import PlannedLine, encode_header, encode_planned
from batchord.state.keys import Shard
from batchord.storage import Blobs, paths
from workers.inputs import Inputs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path.as_uri())


def shard(number: int) -> Shard:
    return Shard("batch_1", "p", number)


async def put(blobs: Blobs, number: int) -> Shard:
    content = encode_header("/v1/chat/completions") + encode_planned(PlannedLine(number, f"line-{number}", Raw(b"{}")))
    await blobs.put(paths.shard_part(shard(number), "input"), content)
    return shard(number)


async def lose(blobs: Blobs, number: int) -> None:
    await blobs.delete([paths.shard_part(shard(number), "input")])


async def test_all_who_ask_at_once_get_the_same_input(blobs: Blobs) -> None:
    asked, inputs = await put(blobs, 1), Inputs(blobs)
    first, *others = await asyncio.gather(*(inputs.get(asked) for _ in range(50)))
    assert first.line(0).custom_id == "line-1"
    assert all(other is first for other in others)


async def test_an_input_in_use_is_read_once(blobs: Blobs) -> None:
    asked, inputs = await put(blobs, 1), Inputs(blobs)
    read = await inputs.get(asked)
    await lose(blobs, 1)
    assert await inputs.get(asked) is read


async def test_an_input_that_is_lost_is_told_to_all_who_asked(blobs: Blobs) -> None:
    inputs = Inputs(blobs)
    told = await asyncio.gather(*(inputs.get(shard(1)) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in told] == [BlobNotFoundError] * 3
    assert (await inputs.get(await put(blobs, 1))).line(0).line == 1


async def test_who_is_cancelled_cancels_nobody_else(blobs: Blobs) -> None:
    asked, inputs = await put(blobs, 1), Inputs(blobs)
    gone, stays = (asyncio.create_task(inputs.get(asked)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).line(0).line == 1


async def test_what_is_idle_stays_where_there_is_room(blobs: Blobs) -> None:
    first, second, inputs = await put(blobs, 1), await put(blobs, 2), Inputs(blobs, life_s=0.0)
    read = await inputs.get(first)
    await inputs.get(second)
    await lose(blobs, 1)
    assert await inputs.get(first) is read


@pytest.mark.parametrize("bounds", [{"life_s": 0, "idle_bytes": 1}, {"most_bytes": 1}], ids=["idle", "too large"])
async def test_what_is_not_used_is_let_go_when_another_comes(blobs: Blobs, bounds: dict[str, int]) -> None:
    first, second, inputs = await put(blobs, 1), await put(blobs, 2), Inputs(blobs, **bounds)
    await inputs.get(first)
    await inputs.get(second)
    await lose(blobs, 1)
    await lose(blobs, 2)
    assert (await inputs.get(second)).line(0).line == 2
    with pytest.raises(BlobNotFoundError):
        await inputs.get(first)
