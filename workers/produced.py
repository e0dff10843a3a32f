"""The files that a round of a batch produces: their records, announced and final, and their lines on the way there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from batchord.contract import FileObject, produced_file_id
from batchord.lifecycle import Status
from batchord.state import batches, files
from batchord.storage import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.contract import BatchObject, Produced
    from batchord.merge import Keep
    from batchord.state.calls import Call
    from workers.context import Context

_NAMES: Final[dict[Produced, str]] = {"output": "output", "errors": "error", "attempts": "attempts"}


def of_round(batch: BatchObject, round_: int) -> list[FileObject]:
    """Give the files that a round of a batch may produce, as far as they are known before they are written."""
    return [produced_file(batch, produced, round_) for produced in _NAMES]


async def announce(context: Context, batch: BatchObject) -> None:
    """Write the records of the files that a planned round may produce: what is sealed of them can be read already.

    Not if the round has started, or ended, while this plan of it was hanging.
    """
    record = await context.state.run(batches.read(batch.id))
    if record is not None and record.batch.status is Status.VALIDATING and record.batch.round == batch.round:
        announced = [file.model_copy(update={"status": "uploaded"}) for file in of_round(batch, batch.round)]
        await context.state.run_all([files.announce(file) for file in announced])


def finish(batch: BatchObject, produced: Produced, size_bytes: int, retention_s: int) -> list[Call[None]]:
    """Write the record of a produced file that is whole. What was tried is the operator's, and goes with the batch."""
    life_s = retention_s if produced == "attempts" else batch.output_expires_after_s
    file = produced_file(batch, produced, batch.round)
    expires_at = None if life_s is None else file.created_at + life_s
    final = file.model_copy(update={"bytes": size_bytes, "expires_at": expires_at})
    return files.write(final, listed=produced != "attempts")


def produced_file(batch: BatchObject, produced: Produced, round_: int) -> FileObject:
    """Give one of the files that a round of a batch may produce."""
    return FileObject(
        id=produced_file_id(batch.id, produced, round_),
        bytes=0,
        created_at=int(time.time()),
        filename=f"{batch.id}_{_NAMES[produced]}.jsonl",
        purpose="batch_output",
        tenant=batch.tenant,
        batch_id=batch.id,
    )


class Chunks:
    """Lines on their way to storage, joined to chunks: counts their bytes, and keeps the step's lease."""

    def __init__(self, lines: AsyncIterator[bytes], keep: Keep) -> None:
        self._lines = lines
        self._keep = keep
        self.size_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the lines in chunks of whole ones."""
        chunk: list[bytes] = []
        chunk_bytes = 0
        async for line in self._lines:
            if chunk_bytes >= CHUNK_BYTES:
                yield await self._count(chunk)
                chunk, chunk_bytes = [], 0
            chunk.append(line)
            chunk_bytes += len(line)
        if chunk:
            yield await self._count(chunk)

    async def _count(self, chunk: list[bytes]) -> bytes:
        joined = b"".join(chunk)
        self.size_bytes += len(joined)
        await self._keep()
        return joined
