"""A fleet inside a test: real Redis, queues and storage, a pump in the place of Celery's worker, trouble on demand.

Not for what Celery's worker itself does: acks, redelivery and drains are tested with real workers.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest
import redis
from celery.app.task import Context as TaskContext

from batchord.broker import CONTROL_QUEUE, Step, provider_queue
from batchord.client import Client
from batchord.contract import BatchObject, Usage
from batchord.errors import StateUnavailableError
from batchord.lifecycle import Status
from batchord.settings import Settings
from batchord.state import batches, keys
from batchord.state.connection import StateError
from batchord.state.keys import Shard
from batchord.storage import paths
from workers.celery_app import create_celery
from workers.context import Context
from workers.execute import DuplicateLine, execute
from workers.feed import feed
from workers.finalize import finalize
from workers.patience import patiently
from workers.permits import Draining
from workers.plan import plan
from workers.providers import ProviderError, Request, Response
from workers.seal import seal
from workers.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from celery import Celery

    from batchord.state.calls import Call
    from batchord.state.batches import BatchRecord

BATCH = "batch_" + "0" * 32
ENDPOINT = "/v1/chat/completions"
PROVIDERS = ("one", "two")
QUEUES = (CONTROL_QUEUE, *map(provider_queue, PROVIDERS))
BOUND_S = 20.0

_SWEEPS = 50
_READS = {"HGETALL", "HMGET", "LLEN", "ZRANGE", "ZRANGEBYSCORE"}
_PROVIDERS_FILE = "".join(
    f'[providers.{name}]\nkind = "simulated"\nmodels = ["{name}-*"]\nmax_attempts = 2\nmax_concurrency = 64\n'
    for name in PROVIDERS
)


class Died(Exception):  # noqa: N818  (no fault, but a death)
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
    """Every provider's upstream: answers by the first word of the custom_id, always the same, and remembers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.meanwhile: Callable[[Request], Awaitable[None]] | None = None

    async def send(self, request: Request) -> Response:
        """Answer, once `meanwhile` is over; see `ProviderClient`."""
        self.calls.append(request.custom_id)
        if self.meanwhile is not None:
            await self.meanwhile(request)
        kind = request.custom_id.partition("-")[0]
        if kind == "broken":
            raise ProviderError("connection_error", "The upstream hung up.", retry_after_s=10_000)
        if kind == "flaky" and request.attempt == 1:
            raise ProviderError("connection_error", "The upstream hung up, once.")
        text = "x" * (3_000 if kind == "large" else 10)
        body = msgspec.json.encode({"said": text, "to": msgspec.Raw(request.body)})
        usage = Usage(input_tokens=3, output_tokens=2, total_tokens=5)
        return Response(400 if kind == "bad" else 200, body, f"req-{request.custom_id}", usage, None, 1.0)

    async def aclose(self) -> None:
        """Nothing is open."""


async def _carry_out(context: Context, message: Message) -> None:
    """Call the step as `workers.tasks` does; Celery shares tasks between the apps of a process, so not by its app."""
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
        self.context.providers.update(dict.fromkeys(PROVIDERS, self.site.upstream))
        for name in ("send", "publish", "forget_chord"):
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
            if call.command[0] not in _READS:
                await self._wrote()
        for error in refused:
            raise error
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
        for path in objects:
            self._check_alive()
            await original([path])
            await self._wrote()

    def _check_alive(self) -> None:
        if self.dead:
            raise Died

    async def _wrote(self) -> None:
        self.writes += 1
        if self.after_write is not None:
            await self.after_write(self.writes)


@dataclass(frozen=True)
class Result:
    """What a batch ended with, as its user sees it."""

    status: Status
    output: bytes | None
    errors: bytes | None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def succeeded(self) -> list[str]:
        """The custom_ids of the output file, in its order."""
        return [json.loads(line)["custom_id"] for line in (self.output or b"").splitlines()]

    @property
    def unsuccessful(self) -> list[tuple[str, str | int]]:
        """The custom_ids of the error file, in its order, each with the code of its error or the status of its answer."""
        lines = map(json.loads, (self.errors or b"").splitlines())
        return [(line["custom_id"], (line["error"] or {}).get("code") or line["response"]["status_code"]) for line in lines]


class Site:
    """A Redis, a storage, and the workers that a test starts there."""

    def __init__(self, app: Celery, settings: Settings, seed: int) -> None:
        self.app, self.settings = app, settings
        self.redis: Any = redis.Redis.from_url(settings.redis_url, decode_responses=True)
        self.client = Client(settings)
        vars(self.client)["_producer"] = app
        self.upstream = Upstream()
        self.random = random.Random(seed)
        self.workers: list[Worker] = []
        self.failures: list[Exception] = []
        self.sweeps = 0
        self._open = AsyncExitStack()

    async def aclose(self) -> None:
        await self._open.aclose()
        self.client.close()
        self.redis.close()

    async def worker(self) -> Worker:
        """Start a worker, to which a test gives messages itself."""
        return await self._open.enter_async_context(Worker(self))

    async def join(self) -> None:
        """Start a worker that takes its part in what the site carries out."""
        self.workers.append(await self.worker())

    def submit(self, lines: Sequence[dict[str, Any]], batch_id: str = BATCH) -> None:
        """Create a batch whose id is known beforehand, so that two runs of it can be compared to the byte."""
        now = int(time.time())
        file = self.client._upload(lines, None, None)
        batch = BatchObject(
            id=batch_id,
            endpoint=ENDPOINT,
            input_file_id=file.id,
            completion_window="24h",
            status=Status.VALIDATING,
            created_at=now,
            expires_at=now + 86_400,
        )
        self.client._create(batch)

    def record(self, batch_id: str = BATCH) -> BatchRecord:
        record = self.client.state.run(batches.read(batch_id))
        assert record is not None
        return record

    def cancel(self, batch_id: str = BATCH) -> Status:
        return self.client.batch(batch_id).cancel()

    def pass_deadline(self, batch_id: str = BATCH) -> None:
        """Let the completion window be over."""
        self.redis.hset(keys.batch(batch_id), "expires_at", int(time.time()) - 1)

    def pass_time(self) -> None:
        """Let every lease, and every claim that nobody renews, run out."""
        for lease in self.redis.scan_iter("batchord:*lease*"):
            self.redis.delete(lease)
        for owners in self.redis.scan_iter("batchord:*:owners:*"):
            self.redis.hset(owners, mapping=dict.fromkeys(self.redis.hkeys(owners), 0))

    # --- messages ---

    def messages(self, *queues: str) -> list[Message]:
        """Give all messages that wait, the next one first."""
        return [Message.read(q, raw) for q in queues or QUEUES for raw in reversed(self.redis.lrange(q, 0, -1))]

    def take(self) -> Message | None:
        """Take any message off its queue."""
        waiting = [queue for queue in QUEUES if self.redis.llen(queue)]
        if not waiting:
            return None
        queue = self.random.choice(waiting)
        raw = self.redis.lindex(queue, self.random.randrange(self.redis.llen(queue)))
        self.redis.lrem(queue, 1, raw)
        return Message.read(queue, raw)

    def put_back(self, message: Message) -> None:
        """Deliver a message once more."""
        if message.raw:
            self.redis.rpush(message.queue, message.raw)

    async def carry_out(self, message: Message) -> None:
        """Have some living worker carry a message out; if it dies of it, the message comes back."""
        worker = self.random.choice([worker for worker in self.workers if not worker.dead])
        try:
            await worker.carry_out(message)
        except Died:
            self.pass_time()
            self.put_back(message)
            await self.join()

    async def sweep(self) -> None:
        self.sweeps += 1
        await self.carry_out(Message(Step.SWEEP, ()))

    async def until(self, step: Step) -> Message:
        """Carry messages out until one asks for this step, and give it."""
        while message := self.take():
            if message.step is step:
                return message
            await self.carry_out(message)
        raise AssertionError(f"no message asks for {step}")

    async def drive(self, *, at_once: int = 1, lose: float = 0, repeat: float = 0) -> None:
        """Carry out everything in any order, sweeping where no message is left, until the batches have ended.

        Of the messages, the share `lose` is lost and the share `repeat` delivered twice.
        """
        most_sweeps = self.sweeps + _SWEEPS
        while self.sweeps < most_sweeps:
            taken = [message for _ in range(at_once) if (message := self.take())]
            if not taken and not self.redis.exists(keys.ACTIVE):
                return
            if not taken:
                await self.sweep()
            for message in taken:
                if self.random.random() < repeat:
                    self.put_back(message)
            kept = [message for message in taken if self.random.random() >= lose]
            await asyncio.wait_for(asyncio.gather(*map(self.carry_out, kept)), BOUND_S)
        raise AssertionError(f"the batch does not end: {self.record()} {self.failures[:3]}")

    # --- what is left ---

    def result(self, batch_id: str = BATCH) -> Result:
        record = self.record(batch_id)
        batch = record.batch
        output, errors = (
            None if file_id is None else b"".join(self.client.blobs.stream(paths.file(file_id)))
            for file_id in (batch.output_file_id, batch.error_file_id)
        )
        counts = {"cancelled": record.cancelled_lines, "expired": record.expired_lines}
        return Result(batch.status, output, errors, counts | batch.request_counts.model_dump() | _words(batch.usage))

    def objects(self) -> list[str]:
        """Give the path of each object that a batch needs only while it runs."""
        folder = self.settings.data_dir / "storage" / "batches"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def state_keys(self) -> list[str]:
        """Give the keys of batches and their shards, chords and leases; not those of files."""
        return sorted(key for key in self.redis.scan_iter("batchord:*") if "batch_" in key or "lease" in key)

    def assert_tidy(self, *batch_ids: str) -> None:
        """Check that ended batches left nothing but their hashes, which will go by themselves."""
        hashes = sorted(map(keys.batch, batch_ids or (BATCH,)))
        assert self.state_keys() == hashes
        assert all(0 < self.redis.ttl(key) <= self.settings.retention_s for key in hashes)
        assert self.objects() == []
        assert self.messages() == []
        assert self.failures == []


def _words(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in ("input_tokens", "output_tokens", "total_tokens")}


class Sites:
    """Makes sites, one after the other, each with an empty Redis and an empty folder; a context manager."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._folder, self._made = folder, 0
        providers = folder / "providers.toml"
        providers.write_text(_PROVIDERS_FILE)
        self._settings = {
            "redis_url": redis_url,
            "providers": providers,
            "stall_s": 1e-6,
            "shard_lines": 3,
            "window_lines": 3,
            "spill_bytes": 2_000,
        }
        self._app = create_celery(Settings(**self._settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._app.backend.client.close()
        self._app.close()

    @asynccontextmanager
    async def new(self, *, seed: int = 0, workers: int = 1, **settings: Any) -> AsyncIterator[Site]:
        """Give a site with some workers, which do not pause before they try something again."""
        self._made += 1
        site = Site(self._app, Settings(**{**self._settings, "data_dir": self._folder / str(self._made), **settings}), seed)
        site.redis.flushall()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("workers.patience._PAUSES_S", (0.0,))
            patch.setattr("batchord.state.connection._INSIST_PAUSES_S", (0.0,))
            try:
                for _ in range(workers):
                    await site.join()
                yield site
            finally:
                await site.aclose()


def line(custom_id: str, provider: str = "one", **body: Any) -> dict[str, Any]:
    """Give a line of an input file; the first word of its custom_id says how the upstream answers it."""
    return {"custom_id": custom_id, "body": {"model": f"{provider}-model", "messages": [], **body}}


def mixed_lines() -> list[dict[str, Any]]:
    """Give a batch of everything: two providers in turns, more than a window of one, every kind of answer."""
    kinds = ["ok", "bad", "large", "broken", "ok", "ok", "large", "bad"]
    return [line(f"{kind}-{number}", "two" if number % 3 == 1 else "one") for number, kind in enumerate(kinds)]


async def came(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.001)


Trouble = Callable[[Site, Worker, Message], Awaitable[None]]
Reach = Callable[[Site], Awaitable[Message]]


async def undisturbed(sites: Sites, lines: Sequence[dict[str, Any]]) -> Result:
    """Give what a batch ends with when nothing goes wrong; no sweep is needed then."""
    async with sites.new() as site:
        site.submit(lines)
        await site.drive()
        assert site.sweeps == 0
        site.assert_tidy()
        return site.result()


async def each_moment(
    sites: Sites,
    reach: Reach,
    trouble: Trouble,
    check: Callable[[Site], None],
    lines: Sequence[dict[str, Any]] = (),
) -> None:
    """Carry out one step of a batch with trouble right after its first write, its second, … and then all the rest.

    Each time, and once without trouble, `check` looks at what the batch ended with.
    """
    for number in count(1):
        async with sites.new(seed=number) as site:
            site.submit(lines or mixed_lines())
            message = await reach(site)
            struck = await carry_out_with(site, message, number, trouble)
            await site.drive()
            check(site)
        if not struck:
            assert number > 1
            return


async def changes_nothing(sites: Sites, reach: Reach, trouble: Trouble) -> None:
    """Check that trouble after any write of a step leaves no trace in the results, and no line is sent twice for it."""
    expected = await undisturbed(sites, mixed_lines())

    def check(site: Site) -> None:
        assert site.result() == expected
        assert sorted(site.upstream.calls) == sorted(line["custom_id"] for line in mixed_lines())
        site.assert_tidy()

    await each_moment(sites, reach, trouble, check)


async def carry_out_with(site: Site, message: Message, number: int, trouble: Trouble) -> bool:
    """Carry out a message with trouble after the worker's write of that number; whether it came to that."""
    victim = await site.worker()

    async def after_write(written: int) -> None:
        if written == number:
            await trouble(site, victim, message)

    victim.after_write = after_write
    with suppress(Died):
        await victim.carry_out(message)
    victim.after_write = None
    return victim.writes >= number


async def dies_and_is_redelivered(site: Site, victim: Worker, message: Message) -> None:
    """The worker dies; its claims and leases run out, and the broker delivers the message again."""
    site.pass_time()
    site.put_back(message)
    await victim.die()


async def dies_and_is_lost(site: Site, victim: Worker, _message: Message) -> None:
    """The worker dies, and the message with it."""
    site.pass_time()
    await victim.die()


async def redis_fails(site: Site, _victim: Worker, _message: Message) -> None:
    """Redis carried the write out, but its answer is lost; it is away for longer than any lease lives."""
    site.pass_time()
    raise StateUnavailableError("Connection lost, as asked for.")


async def is_cancelled(site: Site, _victim: Worker, _message: Message) -> None:
    """A client cancels the batch; the worker goes on."""
    site.cancel()


async def is_cancelled_and_overtaken(site: Site, _victim: Worker, _message: Message) -> None:
    """A client cancels the batch, and others end it while the worker hangs."""
    site.pass_time()
    site.cancel()
    await site.drive()


async def is_overtaken(site: Site, _victim: Worker, message: Message) -> None:
    """The worker hangs so long that others do its work, and all the rest, before it goes on."""
    site.pass_time()
    site.put_back(message)
    await site.drive()
