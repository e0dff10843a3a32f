"""The producer's side: `submit` hands a batch to a running fleet and gives a handle. Not for running the fleet."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchord.batch import Batch
from batchord.broker import CONTROL_QUEUE, Step, create_producer, provider_queue, send
from batchord.contract import (
    BATCH_FILE_LIFE_S,
    BatchObject,
    FileObject,
    new_batch_id,
    new_file_id,
)
from batchord.creation import Terms, check_batch_id
from batchord.errors import ConfigError, StateUnavailableError
from batchord.items import encode_items
from batchord.settings import Settings, read_settings
from batchord.state import batches, files, leases, shards
from batchord.state import queues as broker_queues
from batchord.state.connection import BlockingState, StateError
from batchord.state.keys import Shard
from batchord.storage import BlockingBlobs, paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from celery import Celery

    from batchord.state.batches import BatchRecord
    from batchord.state.calls import Call


_DISK_WAIT_MS: Final = 5_000


class Client:
    """A producer's connection to one fleet: its Redis and its storage. Thread-safe as far as redis-py is."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or read_settings()
        self.state = BlockingState(self.settings.redis_url)
        self.blobs = BlockingBlobs(self.settings.blobs_url)

    @cached_property
    def _producer(self) -> Celery:
        return create_producer(self.settings.redis_url)

    def submit(  # noqa: PLR0913 (what a batch is)
        self,
        source: str | Path | Iterable[Mapping[str, Any]],
        *,
        model: str | None = None,
        endpoint: str | None = None,
        metadata: Mapping[str, str] | None = None,
        completion_window: str = "24h",
        max_cost: float | None = None,
        dedupe: bool | None = None,
        batch_id: str | None = None,
    ) -> Batch:
        """Store the requests and start a batch of them; see `batchord.submit`.

        With a `batch_id` of the caller's own, submitting the same requests again makes no second batch.
        """
        terms = Terms(endpoint, completion_window, metadata, max_cost=max_cost, dedupe=dedupe)
        terms.check()
        if batch_id is not None:
            check_batch_id(batch_id)
        file = self._upload(source, model, endpoint)
        batch = terms.batch(batch_id or new_batch_id(), file.id, time.time())
        self._create(batch)
        return Batch(self, batch.id)

    def batch(self, batch_id: str) -> Batch:
        """Give a handle on a batch.

        Raises:
            NotFoundError: there is none of this id.
        """
        handle = Batch(self, batch_id)
        handle.read()
        return handle

    def ask(self, step: Step, *args: str) -> None:
        """Send a step to the fleet; where the broker is away, the sweep sees to it later."""
        with suppress(StateUnavailableError):
            send(self._producer, step, *args)

    def write(self, calls: Sequence[Call[Any]]) -> tuple[list[Any], bool]:
        """Send calls, and give their answers and whether they are on the server's disk."""
        try:
            *answers, is_durable = self.state.run_all([*calls, batches.durable(_DISK_WAIT_MS)])
        except StateError:  # a server without an append-only file keeps nothing on disk, as its operator chose
            return self.state.run_all(calls), True
        return answers, is_durable

    def revive(self, *batch_ids: str) -> None:
        """Make batches ready to go on whose fleet is known to be dead, as after a run that was killed.

        The messages of that fleet are dropped, and published again from the state by the sweep that this sends.
        """
        records = [record for record in self.state.run_all([batches.read(each) for each in batch_ids]) if record]
        queues = {provider_queue(provider) for record in records for provider in record.shards}
        self.state.run_all([broker_queues.clear([CONTROL_QUEUE, *queues]), leases.end_all(batch_ids)])
        for record in records:
            self._free_open_shards(record)
            self.ask(Step.PLAN, record.batch.id)
        self.ask(Step.SWEEP)

    def revive_all(self) -> None:
        """Make every batch that has not ended ready to go on; see `revive`."""
        self.revive(*(batch_id for batch_id, _ in self.state.run(batches.active())))

    def _free_open_shards(self, record: BatchRecord) -> None:
        """End the claims of dead workers, and let the next sweep publish what is missing."""
        for provider in record.shards:
            for number, _ in self.state.run(shards.open_numbers(record.batch.id, provider)):
                shard = Shard(record.batch.id, provider, number)
                self.state.run_all([shards.disown(shard), shards.hurry(shard)])

    def close(self) -> None:
        """Close every connection."""
        self.state.close()

    def _upload(
        self, source: str | Path | Iterable[Mapping[str, Any]], model: str | None, endpoint: str | None
    ) -> FileObject:
        file_id, now = new_file_id(), int(time.time())
        content: Path | Iterator[bytes]
        if isinstance(source, str | Path):
            if model is not None:
                raise ConfigError("model goes with requests given one by one; the lines of a file name their own.")
            name, content = Path(source).name, _existing(Path(source))
        else:
            name, content = "requests.jsonl", encode_items(source, model=model, endpoint=endpoint)
        size_bytes = self.blobs.put(paths.file(file_id), content)
        file = FileObject(
            id=file_id,
            bytes=size_bytes,
            created_at=now,
            filename=name,
            purpose="batch",
            expires_at=now + BATCH_FILE_LIFE_S,
        )
        self.state.run_all(files.write(file))
        return file

    def _create(self, batch: BatchObject) -> None:
        """Write the batch and wait until it is on the server's disk; only then is it the fleet's."""
        (*_, is_new), is_durable = self.write(batches.enter(batch, time.time()))
        if not is_durable:
            if is_new:
                self.state.run_all(batches.take_back(batch))
            raise StateUnavailableError(f"Redis did not write batch {batch.id} to its disk in time; submit it again.")
        self.ask(Step.PLAN, batch.id)


def submit(  # noqa: PLR0913 (what a batch is, and where)
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    model: str | None = None,
    endpoint: str | None = None,
    metadata: Mapping[str, str] | None = None,
    completion_window: str = "24h",
    max_cost: float | None = None,
    dedupe: bool | None = None,
    settings: Settings | None = None,
) -> Batch:
    """Hand requests to the running fleet of BATCHORD_REDIS_URL and BATCHORD_STORAGE_URL as one batch.

    Args:
        source: the path of a JSONL file in the form of OpenAI's Batch API, or the requests themselves, each a mapping
            with `custom_id` and either `body` or `message` (see `batchord.items`).
        model: for requests that name none.
        endpoint: such as `/v1/chat/completions`; if None, the first request says it.
        metadata: at most 16 short strings by name, given back with the batch.
        completion_window: such as `24h`; lines that have not been sent by then expire.
        max_cost: dollars; when the answers have cost that much nothing more is sent, and the other lines fail with
            `max_cost_reached`. What is in flight then is paid besides. Each model needs a known price.
        dedupe: whether requests of the same body are sent once and answered for all of them; if None, those of
            temperature 0 are.
        settings: in place of the BATCHORD_* variables.

    Raises:
        ConfigError: a setting is wrong, or the input file is not there.
        InvalidRequestError: one of the terms is none that a batch may have.
        ItemError: one of the requests has neither form.
        UnavailableError: Redis or the storage does not answer.
    """
    return Client(settings).submit(
        source,
        model=model,
        endpoint=endpoint,
        metadata=metadata,
        completion_window=completion_window,
        max_cost=max_cost,
        dedupe=dedupe,
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"The input file {path} {'is no regular file' if path.exists() else 'does not exist'}.")
    return path
