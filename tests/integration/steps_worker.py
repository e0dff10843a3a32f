"""A worker process inside a test, without its Celery: it tells of each of its writes, so that trouble may follow it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec
from celery.app.task import Context as TaskContext

from batchord.broker import CONTROL_QUEUE, Step, provider_queue
from batchord.contract import Usage
from batchord.errors import BatchordError, StateUnavailableError
from batchord.state import keys
from batchord.state.connection import StateError
from batchord.state.keys import Shard
from batchord.state.shards import Contact
from workers.context import Context
from workers.draining import Draining
from workers.execute import DuplicateLine, execute
from workers.feed import feed
from workers.finalize import finalize
from workers.patience import patiently
from workers.plan import plan
from workers.providers import ProviderError, Request, Response
from workers.seal import seal
from workers.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from batchord.state.calls import Call
    from tests.integration.steps import Site

READS = {"HGETALL", "HMGET", "LLEN", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE"}


class Died(BatchordError):  # noqa: N818  (no fault, but a death)
    """The worker's process is gone: raised by the write that was its last, and by all that it tries afterwards."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a queue: the step that it asks for; `raw` is the text on the queue."""

    step: Step
    args: tuple[str | int, ...]
    task_id: str = ""
    group: str | None = None
    queue: str = CONTROL_QUEUE
    raw: str = ""

    @classmethod
    def read(cls, queue: str, raw: str) -> Message:
        envelope = json.loads(raw)
        headers, (args, _, _) = envelope["headers"], json.loads(envelope["body"])
        return cls(Step(headers["task"]), tuple(args), headers["id"], headers.get("group"), queue, raw)


class Upstream:
    """Every provider's upstream: answers by the first word of the custom_id, always the same, and remembers.

    The attempts of a line that is bound to fail are remembered as one. Once it is `healed` it has a success for
    everything.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.meanwhile: Callable[[Request], Awaitable[None]] | None = None
        self.healed = False

    async def send(self, request: Request) -> Response:
        """Answer, once `meanwhile` is over; see `ProviderClient`."""
        if not (request.attempt > 1 and request.custom_id.startswith("broken")):
            self.calls.append(request.custom_id)
        if self.meanwhile is not None:
            await self.meanwhile(request)
        kind = "ok" if self.healed else request.custom_id.partition("-")[0]
        if kind == "broken":
            raise ProviderError("invalid_response", "The upstream hung up.")
        if kind == "flaky" and request.attempt == 1:
            raise ProviderError("connection_error", "The upstream hung up, once.")
        text = "x" * (3_000 if kind == "large" else 10)
        body = msgspec.json.encode({"said": text, "to": msgspec.Raw(request.body)})
        usage = Usage(input_tokens=3, output_tokens=2, total_tokens=5)
        return Response(400 if kind == "bad" else 200, body, f"req-{request.custom_id}", usage, None, 1.0, 0.5)

    async def models(self) -> list[str]:
        """It does not say."""
        return []

    async def aclose(self) -> None:
        """Nothing is open."""


async def _carry_out(context: Context, message: Message) -> None:
    """Call the step as `workers.tasks` does."""
    batch_id, *rest = map(str, message.args or ("",))
    shard = Shard(batch_id, rest[0], int(rest[1])) if rest else Shard(batch_id, "", 0)
    steps: dict[Step, Callable[[], Awaitable[None]]] = {
        Step.PLAN: lambda: plan(context, batch_id),
        Step.FEED: lambda: feed(context, batch_id),
        Step.EXECUTE: lambda: execute(context, shard, int(rest[2])),
        Step.SEAL: lambda: seal(context, shard),
        Step.FINALIZE: lambda: finalize(context, batch_id),
        Step.SWEEP: lambda: sweep(context),
    }
    await patiently(steps[message.step])


def _is_aside(call: Call[Any]) -> bool:
    """Whether it tells of a provider's condition or its rates, which no step waits for."""
    return any(str(word).startswith((keys.condition(""), keys.rates(""))) for word in call.command)


class Worker:
    """One worker process, but for its Celery: `after_write` is told of each write, by its number from 1."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.after_write: Callable[[int], Awaitable[None]] | None = None
        self.writes = 0
        self.dead = False

    async def __aenter__(self) -> Self:
        self.context = Context(self.site.app, self.site.settings)
        await self.context.__aenter__()
        self.context._beating.cancel()  # time passes in a test only when the test says so
        for condition in self.context.conditions.values():
            condition.close()  # what it tells, it tells in the background, and a test counts each write
        await self.context.desk.beat()
        self.context.desk._contact = Contact(0, self.context.desk._contact.until)
        for name, provider in self.context.routes.providers.items():
            self.context.resize(name, provider.most_in_flight)
        self.context.providers.update(dict.fromkeys(self.context.providers, self.site.upstream))
        for name in ("send", "publish"):
            self._watch(self.context, name, getattr(self, f"_{name}", None))
        self._watch(self.context.state, "run_all", self._run_all)
        self._watch(self.context.blobs, "put")
        self._watch(self.context.blobs, "delete", self._delete)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dead, self.after_write = False, None
        await self.context.__aexit__(None, None, None)

    async def die(self) -> None:
        """End here and now, to be called by `after_write`."""
        self.dead = True
        raise Died

    async def carry_out(self, message: Message) -> None:
        """Do what Celery's worker does with a message, up to its ack."""
        try:
            await _carry_out(self.context, message)
        except DuplicateLine:
            return
        except Draining:
            self.site.put_back(message)
            return
        except Died:
            raise
        except Exception as error:  # noqa: BLE001  (Celery logs it, acks, and counts the part)
            self.site.failures.append(error)
        if message.group is not None:
            request = TaskContext(id=message.task_id, group=message.group, chord={})
            self.site.app.backend.on_chord_part_return(request, "SUCCESS", None)
            with suppress(StateUnavailableError):  # the pool counts it again
                await self._wrote()

    def _watch(self, owner: object, name: str, instead: Callable[..., Awaitable[Any]] | None = None) -> None:
        """Have a writing method tell of its writes; `instead` is for one that writes more than once."""
        original = getattr(owner, name)

        async def watched(*args: Any) -> Any:
            self._check_alive()
            if instead is not None:
                return await instead(original, *args)
            answer = await original(*args)
            await self._wrote()
            return answer

        setattr(owner, name, watched)

    async def _run_all(self, original: Callable[..., Awaitable[list[Any]]], calls: Sequence[Call[Any]]) -> list[Any]:
        """Send them one by one, since the connection may break between any two; what is refused stops no other."""
        answers, refused = [], []
        for call in calls:
            self._check_alive()
            try:
                answers += await original([call])
            except StateError as error:
                refused.append(error)
            if call.command[0] not in READS and not _is_aside(call):
                await self._wrote()
        if refused:
            raise refused[0]
        return answers

    async def _publish(self, original: Callable[..., Awaitable[None]], shard: Shard, indices: Sequence[int]) -> None:
        """Three writes: the chord, the first half of the messages, the other half."""
        await original(shard, indices)
        if self.after_write is None:
            return
        queue = provider_queue(shard.provider)
        messages = self.site.redis.lrange(queue, 0, len(indices) - 1)
        self.site.redis.ltrim(queue, len(indices), -1)
        await self._wrote()
        for half in (messages[len(messages) // 2 :], messages[: len(messages) // 2]):
            if half:
                self.site.redis.lpush(queue, *reversed(half))
            await self._wrote()

    async def _delete(self, original: Callable[..., Awaitable[None]], objects: Sequence[str]) -> None:
        """Two writes: the first object, and the others."""
        for part in (objects[:1], objects[1:]):
            self._check_alive()
            await original(part)
            await self._wrote()

    def _check_alive(self) -> None:
        if self.dead:
            raise Died

    async def _wrote(self) -> None:
        self.writes += 1
        if self.after_write is not None:
            await self.after_write(self.writes)
