"""One attempt of a line: the request goes to the provider whose gate it passed, and its gate learns of the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchord.shard_file import Attempt
from batchord.state.shards import Verdict
from batchord.validation import with_model
from workers.providers import ProviderError, Request, Response
from workers.quarantine import LineDied

if TYPE_CHECKING:
    from workers.context import Context
    from workers.gate import Passage
    from workers.line import LineUnderWay


async def send(context: Context, line: LineUnderWay, passage: Passage) -> Response | ProviderError | LineDied:
    """Send once: here, or alone in a process of its own if workers died while they sent this line."""
    sent_at = time.monotonic()
    line.provider, line.asked_model = passage.provider, passage.model
    passage.send(is_retry=line.has_failed_again)
    try:
        result: Response | ProviderError | LineDied = await _answer(context, line, passage)
    except ProviderError as error:
        result = error
    except LineDied as died:
        result = died
        passage.dropped()
    except BaseException:
        passage.dropped()
        raise
    if not isinstance(result, LineDied):
        passage.sent(result)
    line.tried(_attempt(result, line.helper, round((time.monotonic() - sent_at) * 1000, 1)))
    return result


async def _answer(context: Context, line: LineUnderWay, passage: Passage) -> Response:
    request = Request(
        endpoint=line.endpoint,
        body=line.body if passage.model == line.model else with_model(line.body, passage.model),
        custom_id=line.planned.custom_id,
        attempt=line.sent + 1,
        idempotency_key=_idempotency_key(line),
    )
    if line.verdict is Verdict.SUSPECT:
        return await context.quarantine.send(passage.provider, request)
    return await context.providers[passage.provider].send(request)


def _attempt(result: Response | ProviderError | LineDied, provider: str | None, latency_ms: float) -> Attempt:
    if isinstance(result, Response):
        return Attempt(result.status_code, latency_ms, round(result.ttfb_ms, 1), provider=provider)
    return Attempt(result.code if isinstance(result, ProviderError) else "worker_died", latency_ms, provider=provider)


def _idempotency_key(line: LineUnderWay) -> str:
    """Give the same key to each try of a round; a retry wants another answer than the one before."""
    key = f"{line.shard.batch_id}-{line.planned.line}"
    return f"{key}-{line.shard.round}" if line.shard.round else key
