"""Which lines a retry is asked for: as it is kept in storage from the request until the plan of the round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from batchord.storage import Blobs

_decode = msgspec.json.Decoder(frozenset[str] | None).decode


@dataclass(frozen=True, slots=True)
class Selection:
    """The custom_ids of lines without a success; None stands for all of these."""

    custom_ids: frozenset[str] | None

    def has(self, custom_id: str) -> bool:
        """Whether a line without a success is selected."""
        return self.custom_ids is None or custom_id in self.custom_ids

    def encode(self) -> bytes:
        """Give the object's content."""
        return msgspec.json.encode(self.custom_ids)


async def read_selection(blobs: Blobs, path: str) -> Selection:
    """Read what `encode` gave.

    Raises:
        BlobNotFoundError: it is gone, for the round is over.
    """
    return Selection(_decode(await blobs.get(path)))
