"""A fleet inside a test: real Redis, queues and storage, and a pump in the place of Celery's worker.

Not for what Celery's worker itself does: acks, redelivery and drains are tested with real workers.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis

from batchord.broker import CONTROL_QUEUE, Step, provider_queue
from batchord.client import Client
from batchord.contract import BatchObject
from batchord.errors import BlobNotFoundError
from batchord.lifecycle import Status
from batchord.settings import Settings
from batchord.state import batches, keys
from batchord.storage import paths
from tests.integration.steps_worker import Died, Message, Upstream, Worker
from workers.celery_app import create_celery
from workers.retry import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from celery import Celery

    from batchord.state.batches import BatchRecord

BATCH = "batch_" + "0" * 32
ENDPOINT = "/v1/chat/completions"
PROVIDERS = ("one", "two")
QUEUES = (CONTROL_QUEUE, *map(provider_queue, PROVIDERS))
BOUND_S = 20.0

_SWEEPS = 50
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  (where there is one, some thousand small files cost nothing)
_PROVIDERS_FILE = "".join(
    f'[providers.{name}]\nkind = "simulated"\nmodels = ["{name}-*"]\nmax_attempts = 2\nmax_concurrency = 64\n'
    for name in PROVIDERS
)


@dataclass(frozen=True)
class Result:
    """What a batch ended with, as its user sees it."""

    status: Status
    output: bytes | None
    errors: bytes | None
    counts: dict[str, int]

    @property
    def succeeded(self) -> list[str]:
        """The custom_ids of the output file, in its order."""
        return [json.loads(line)["custom_id"] for line in (self.output or b"").splitlines()]

    @property
    def unsuccessful(self) -> list[tuple[str, str | int]]:
        """The custom_ids of the error file, in its order, each with the code of its error or its answer's status."""
        return [
            (each["custom_id"], each["error"]["code"] if each["error"] else each["response"]["status_code"])
            for each in map(json.loads, (self.errors or b"").splitlines())
        ]


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
        self.overtaken = False  # who is overtaken may stumble over objects that are deleted already
        self.sweeps = 0
        self.on_join: Callable[[Worker], None] = lambda _: None
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
        worker = await self.worker()
        self.on_join(worker)
        self.workers.append(worker)

    def submit(self, lines: Sequence[dict[str, Any]], batch_id: str = BATCH, **changes: Any) -> None:
        """Create a batch whose id is known beforehand, so that two runs of it can be compared to the byte.

        `changes` are of the batch's fields.
        """
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
        self.client._create(batch.model_copy(update=changes))

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

    async def drive(self, *, at_once: int = 1, lose: float = 0, repeat: float = 0, most_sweeps: int = _SWEEPS) -> None:
        """Carry out everything in any order, sweeping where no message is left, until the batches have ended.

        Of the messages, the share `lose` is lost and the share `repeat` delivered twice.
        """
        begun = self.sweeps
        while self.sweeps - begun < most_sweeps:
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

    def result(self, batch_id: str = BATCH) -> Result:
        record = self.record(batch_id)
        batch = record.batch
        output, errors = (
            None if file_id is None else b"".join(self.client.blobs.stream(paths.file(file_id)))
            for file_id in (batch.output_file_id, batch.error_file_id)
        )
        counts = {
            "cancelled": record.cancelled_lines,
            "expired": record.expired_lines,
            "tokens": batch.usage.total_tokens,
        }
        return Result(batch.status, output, errors, counts | batch.request_counts.model_dump())

    def objects(self) -> list[str]:
        """Give the path of each object that a batch needs only while it runs."""
        folder = self.settings.data_dir / "storage" / "batches"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def state_keys(self) -> list[str]:
        """Give the keys of batches and their shards, chords and leases; not those of files."""
        return sorted(key for key in self.redis.scan_iter("batchord:*") if "batch_" in key or "lease" in key)

    def assert_tidy(self, *batch_ids: str) -> None:
        """Check that ended batches left nothing but their hashes and analytics, and are listed to be removed."""
        hashes = sorted(map(keys.batch, batch_ids or (BATCH,)))
        assert sorted(set(self.state_keys()) - set(map(keys.analytics, batch_ids or (BATCH,)))) == hashes
        assert [keys.batch(batch_id) for batch_id in sorted(self.redis.zrange(keys.RETIRED, 0, -1))] == hashes
        assert self.objects() == []
        assert self.messages() == []
        assert [error for error in self.failures if not (self.overtaken and isinstance(error, BlobNotFoundError))] == []


class Sites:
    """Makes sites, one after the other, each with an empty Redis and an empty folder; a context manager."""

    def __init__(self, redis_url: str) -> None:
        self._temporary = TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
        self._made = count(1)
        providers = Path(self._temporary.name) / "providers.toml"
        providers.write_text(_PROVIDERS_FILE)
        self._settings: dict[str, Any] = {
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
        self._temporary.cleanup()

    @asynccontextmanager
    async def new(self, *, seed: int = 0, workers: int = 1, **settings: Any) -> AsyncIterator[Site]:
        """Give a site with some workers, which do not pause before they try something again."""
        data_dir = Path(self._temporary.name) / str(next(self._made))
        site = Site(self._app, Settings(**{**self._settings, "data_dir": data_dir, **settings}), seed)
        site.redis.flushall()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("workers.patience._PAUSES_S", (0.0,))
            patch.setattr("workers.execute._policy", partial(Policy, base_s=0.0))
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
    kinds = ["ok", "bad", "large", "broken", "ok", "ok"]
    return [line(f"{kind}-{number}", "two" if number % 3 == 1 else "one") for number, kind in enumerate(kinds)]


async def came(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110  (what is waited for tells nobody)
            await asyncio.sleep(0.001)
