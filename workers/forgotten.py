"""What is left of a batch whose end Redis has forgotten, as it may in a power cut: its files, and none of its parts.

Not for a storage that has lost parts: they are deleted, with the planned lines, once the last file is whole and no
sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from batchord.contract import Produced, produced_file_id
from batchord.errors import BlobNotFoundError
from batchord.state.keys import Shard
from batchord.storage import paths

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord
    from batchord.storage import Blobs

_KINDS: Final[tuple[Produced, ...]] = get_args(Produced)


async def forgotten_files(blobs: Blobs, record: BatchRecord) -> dict[Produced, int] | None:
    """Give the sizes of the round's files where they are all that is left; None where they are to be written.

    Writing them again would fail at best: a line whose parts are gone could only be said to be lost.
    """
    batch = record.batch
    files = {kind: paths.file(produced_file_id(batch.id, kind, batch.round)) for kind in _KINDS}
    if await _size(blobs, files[_last(record)]) is None or await _has_all_inputs(blobs, record):
        return None
    sizes = {kind: await _size(blobs, path) for kind, path in files.items()}
    return {kind: size for kind, size in sizes.items() if size is not None}


def _last(record: BatchRecord) -> Produced:
    """Give the file that is written last; where no line was tried there are no attempts."""
    was_tried = record.batch.round or any(counts.opened > counts.first for counts in record.shards.values())
    return "attempts" if was_tried else "errors"


async def _has_all_inputs(blobs: Blobs, record: BatchRecord) -> bool:
    shards = (
        Shard(record.batch.id, provider, number)
        for provider, counts in record.shards.items()
        for number in range(counts.first, counts.planned)
    )
    for shard in shards:
        if await _size(blobs, paths.shard_part(shard, "input")) is None:
            return False
    return True


async def _size(blobs: Blobs, path: str) -> int | None:
    try:
        return await blobs.size(path)
    except BlobNotFoundError:
        return None
