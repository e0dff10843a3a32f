"""Creating a batch, of a file or of inline requests, and once for each Idempotency-Key. Not the rules of its terms."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from batchord.broker import Step
from batchord.contract import new_batch_id
from batchord.errors import InvalidRequestError, NotFoundError
from batchord.inline import encode_requests
from batchord.items import DEFAULT_ENDPOINT
from batchord.service import batches, files
from batchord.state import batches as batch_state
from batchord.state import once
from batchord.state.once import Claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from batchord.contract import FileObject
    from batchord.creation import Terms
    from batchord.service.backend import Backend
    from batchord.state.batches import BatchRecord

_FILE_NAME: Final = "requests.jsonl"


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for: a batch of a file, or of requests each with `custom_id` and `body`.

    `model` is for those requests whose body names none.
    """

    terms: Terms
    input_file_id: str | None = None
    requests: Sequence[Mapping[str, Any]] | None = None
    model: str | None = None

    def fingerprint(self) -> str:
        """Give what is the same for the same order, and another for another."""
        said = [asdict(self.terms), self.input_file_id, self.requests, self.model]
        return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def lines(self) -> list[bytes] | None:
        """Give the lines of the inline requests; None where there is a file.

        Raises:
            InvalidRequestError: there are both or neither, or a request breaks a rule of a line.
        """
        if self.requests is None:
            if self.input_file_id is None:
                raise InvalidRequestError(
                    "Missing required parameter: 'input_file_id'.", "input_file_id", "missing_required_parameter"
                )
            if self.model is not None:
                raise InvalidRequestError(
                    "'model' goes with 'requests'; the lines of a file name their own.", "model", "invalid_value"
                )
            return None
        if self.input_file_id is not None:
            raise InvalidRequestError(
                "Give either 'input_file_id' or 'requests', not both.", "requests", "invalid_value"
            )
        return encode_requests(self.requests, self.model, self.terms.endpoint or DEFAULT_ENDPOINT)


async def create(backend: Backend, tenant: str, order: Order, idempotency_key: str | None = None) -> BatchRecord:
    """Create a batch, on the server's disk before this returns.

    With a key, the same order within a day is the same batch, also where the first one died before it was written.

    Raises:
        InvalidRequestError: the order breaks a rule, or the key was used with another one.
    """
    order.terms.check(backend.settings.completion_windows)
    lines = await asyncio.to_thread(order.lines)  # others are served while 10,000 requests are looked at
    if not idempotency_key:
        return await _create(backend, tenant, order, lines, new_batch_id())
    key, fingerprint = once.digest(idempotency_key), await asyncio.to_thread(order.fingerprint)
    earlier = await _claimed(backend, tenant, key, fingerprint)
    record = await backend.state.run(batch_state.read(earlier)) if earlier else None
    if record is not None and not record.removing:
        return record
    await _check_input(backend, tenant, order.input_file_id)  # what is refused uses no key up
    claim = once.claim(tenant, key, Claim(fingerprint, new_batch_id()))
    batch_id = ""
    while not batch_id:  # again, where another's claim came to its end between the two
        await backend.state.run(claim)
        batch_id = await _claimed(backend, tenant, key, fingerprint)
    return await _create(backend, tenant, order, lines, batch_id, key)


async def _create(  # noqa: PLR0913, PLR0917 (a batch, and what it is made of)
    backend: Backend, tenant: str, order: Order, lines: Sequence[bytes] | None, batch_id: str, key: str | None = None
) -> BatchRecord:
    """Create the batch of this id, if there is none yet, and give it."""
    await _check_input(backend, tenant, order.input_file_id)
    file_id = order.input_file_id or (await _store(backend, tenant, lines or [])).id
    batch = order.terms.batch(batch_id, file_id, time.time(), tenant)
    await backend.entry.write(batch.model_copy(update={"once": key}))
    record = await batches.find(backend, tenant, batch_id)
    if lines is not None and file_id != record.batch.input_file_id:  # another was first with the same key
        await files.remove(backend, tenant, file_id)
    await backend.ask(Step.PLAN, batch_id)
    return record


async def _claimed(backend: Backend, tenant: str, key: str, fingerprint: str) -> str:
    """Give the id of the batch that a key stands for, or "" where it was not used yet."""
    claim = await backend.state.run(once.read(tenant, key))
    if claim is None:
        return ""
    if claim.fingerprint != fingerprint:
        raise InvalidRequestError(
            "This Idempotency-Key was used with another request before; use a new key for a new request.",
            "Idempotency-Key",
            "idempotency_key_reused",
        )
    return claim.batch_id


async def _check_input(backend: Backend, tenant: str, file_id: str | None) -> None:
    if file_id is None:
        return
    try:
        file = await files.find(backend, tenant, file_id)
    except NotFoundError:
        raise InvalidRequestError(
            f"Cannot find file {file_id:.200}, or project {tenant} does not have access to it.", "file_id"
        ) from None
    if file.purpose != "batch":
        message = f"Invalid 'input_file_id': expected a file of purpose 'batch', not of '{file.purpose}'."
        raise InvalidRequestError(message, "input_file_id", "invalid_value")


async def _store(backend: Backend, tenant: str, lines: Sequence[bytes]) -> FileObject:
    async def content() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    return await files.store(
        backend, tenant, filename=_FILE_NAME, purpose="batch", expires_after_s=None, content=content()
    )
