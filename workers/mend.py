"""What is done for an open shard that makes no progress: the lines that nobody sends are published again.

A message may be lost, a worker may die with it, a chord's count may vanish; the outcomes in Redis tell what is missing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchord.broker import Step
from batchord.state import shards

if TYPE_CHECKING:
    from batchord.state.keys import Shard
    from workers.context import Context


async def mend(context: Context, shard: Shard) -> None:
    """Publish again what is missing of an open shard, or its seal if nothing is."""
    progress = await context.state.run(shards.progress(shard))
    if progress is None:
        return
    if progress.recorded == progress.lines:
        await context.send(Step.SEAL, *shard)
    elif missing := await context.state.run(shards.missing(shard, time.time())):
        await context.publish(shard, missing)
    await context.state.run(shards.touch(shard, time.time()))
