"""Which lines of a plan ask for what an earlier one asks for, so that one answer does for all. Not how they take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from batchord.shard_file import Original
from batchord.validation.seen import Seen

if TYPE_CHECKING:
    from batchord.validation import Accepted


class _Sampled(msgspec.Struct, gc=False):
    """Of a body, how freely the answer may be drawn."""

    temperature: object = None


_TEMPERATURE: Final = b'"temperature"'
_read_sampled: Final = msgspec.json.Decoder(_Sampled).decode
_read_original: Final = msgspec.json.Decoder(Original).decode


class Originals:
    """The first lines so far of each provider and body, in a temporary file that `close` frees.

    `dedupe` says whether lines of the same body may share an answer; if it is None, those of temperature 0 may.
    """

    def __init__(self, dedupe: bool | None) -> None:
        self._dedupe = dedupe
        self._seen = Seen[bytes]()

    def of(self, line: Accepted, own: Original) -> Original | None:
        """Give the earlier line whose answer does for this one; None, and this one is remembered, if there is none.

        The bodies are compared to the byte, so that nothing is guessed of what a provider makes of them.

        Raises:
            StorageUnavailableError: there is no room for temporary files.
        """
        if not self._may_share(line.body):
            return None
        way = line.provider.encode() + (b"!" if line.is_named else b"?")
        first = self._seen.first(way + line.body, msgspec.json.encode(own))
        return None if first is None else _read_original(first)

    def _may_share(self, body: bytes) -> bool:
        return is_greedy(body) if self._dedupe is None else self._dedupe

    def close(self) -> None:
        """Free the temporary file."""
        self._seen.close()


def is_greedy(body: bytes) -> bool:
    """Whether a body asks for temperature 0; one that does not speak of it is not decoded, as that costs far more."""
    return _TEMPERATURE in body and _read_sampled(body).temperature == 0
