"""The Celery tasks of the fleet: each unpacks its arguments and calls its step. Not for what the steps do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.exceptions import Ignore

from batchord.broker import Step
from batchord.state.keys import Shard
from workers.draining import Draining
from workers.execute import DuplicateLine, execute
from workers.feed import feed
from workers.finalize import finalize
from workers.patience import patiently
from workers.plan import plan
from workers.pool import AsyncTask, GiveBack
from workers.seal import seal
from workers.sweep import sweep

if TYPE_CHECKING:
    from celery import Celery

    from workers.context import Context


def register_tasks(app: Celery, context: Context) -> None:
    """Register the six steps; while Redis or the storage is away, a step waits and begins again."""

    @app.task(name=Step.PLAN, base=AsyncTask, shared=False)
    async def run_plan(batch_id: str) -> None:
        await patiently(lambda: plan(context, batch_id))

    @app.task(name=Step.FEED, base=AsyncTask, shared=False)
    async def run_feed(batch_id: str) -> None:
        await patiently(lambda: feed(context, batch_id))

    @app.task(name=Step.EXECUTE, base=AsyncTask, shared=False)
    async def run_execute(batch_id: str, provider: str, number: int, index: int) -> None:
        try:
            await execute(context, Shard(batch_id, provider, number), index)
        except DuplicateLine:
            raise Ignore from None  # it is acked, but not a part of the chord: the line's other message is
        except Draining:
            raise GiveBack from None

    @app.task(name=Step.SEAL, base=AsyncTask, shared=False)
    async def run_seal(batch_id: str, provider: str, number: int) -> None:
        await patiently(lambda: seal(context, Shard(batch_id, provider, number)))

    @app.task(name=Step.FINALIZE, base=AsyncTask, shared=False)
    async def run_finalize(batch_id: str) -> None:
        await patiently(lambda: finalize(context, batch_id))

    @app.task(name=Step.SWEEP, base=AsyncTask, shared=False)
    async def run_sweep() -> None:
        await sweep(context)  # what is away now is there for a later one
