"""What is done for an open shard that makes no progress: the lines that nobody sends are published again.

A message may be lost, a worker may die with it, a chord's count may vanish; the outcomes in Redis tell what is missing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from batchord.broker import Step
from batchord.state import shards
from workers.draining import Draining
from workers.execute import DuplicateLine, execute

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from workers.context import Context


async def mend(context: Context, shard: Shard) -> None:
    """Publish again what is missing of an open shard, or its seal if every line has its outcome."""
    missing = await context.desk.missing(shard)
    if missing.indices and missing.may_be_sent:
        await context.publish(shard, missing.indices)
    else:
        await asyncio.gather(*(_end_unsent(context, shard, index) for index in missing.indices))
        progress = await context.state.run(shards.progress(shard))
        if progress is not None and progress.is_complete:
            await context.send(Step.SEAL, *shard)
    await context.state.run(shards.touch(shard))


async def _end_unsent(context: Context, shard: Shard, index: int) -> None:
    """Give a line of a stopped batch its outcome, without its message: maybe nobody serves that queue any more."""
    with suppress(DuplicateLine, Draining):
        await execute(context, shard, index)
