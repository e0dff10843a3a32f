"""The removal of an ended batch and of all that it produced, for a client or since its retention is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from batchord.contract import Produced, produced_file_id
from batchord.errors import ConflictError
from batchord.state import files, removal, retired
from batchord.storage import paths

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord
    from batchord.state.connection import State
    from batchord.storage import Blobs

_PRODUCED: Final[tuple[Produced, ...]] = get_args(Produced)


async def remove_batch(state: State, blobs: Blobs, record: BatchRecord) -> None:
    """Remove a batch, its parts and the files that it produced; the input file stays. Safe to repeat.

    From the first write on nobody finds the batch any more; where this is cut short, the sweep does the rest.

    Raises:
        ConflictError: it has not ended, or runs again.
    """
    batch = record.batch
    if not await state.run(removal.condemn(record)):
        raise ConflictError(f"Cannot delete a batch with status '{batch.status}'; cancel it, or wait for its end.")
    await state.run(retired.note(batch.id, 0))
    file_ids = _file_ids(record)
    found = await state.run_all([files.read(file_id) for file_id in file_ids])
    await blobs.delete_folder(paths.batch(batch.id))
    await blobs.delete([paths.file(file_id) for file_id in file_ids])
    await state.run_all(files.delete(*filter(None, found)))
    await state.run_all(removal.erase(record))


def _file_ids(record: BatchRecord) -> list[str]:
    """Give every file that the batch may have: those of its round, and of earlier ones that it did not outlive."""
    rounds = range(record.batch.round + 1)
    return [produced_file_id(record.batch.id, part, round_) for round_ in rounds for part in _PRODUCED]
