"""What a new batch may be: the contract's rules for its terms, in OpenAI's words. Pure; not for the input's lines.

Section "Create" of OpenAI's Batch API; texts and codes as the live service sends them, where they are public.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from batchord.contract import DEFAULT_TENANT, ENDPOINTS, BatchObject
from batchord.errors import InvalidRequestError
from batchord.lifecycle import Status
from batchord.prices import NANOS_PER_DOLLAR
from batchord.windows import window_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BATCH_ID: Final = re.compile(r"batch[A-Za-z0-9_-]{1,59}")
_METADATA_PAIRS: Final = 16
_METADATA_KEY_CHARS: Final = 64
_METADATA_VALUE_CHARS: Final = 512
_SHOWN_CHARS: Final = 200
_MOST_DOLLARS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What a client asks of a new batch besides its input.

    Where `endpoint` is None the first request says it. Produced files are kept for ever, or else for
    `output_expires_after_s` seconds. At a cost of `max_cost` dollars nothing more is sent. `dedupe` says whether
    requests of the same body are sent once for all of them; if it is None, those of temperature 0 are.
    """

    endpoint: str | None
    completion_window: str
    metadata: Mapping[str, str] | None = None
    output_expires_after_s: int | None = None
    max_cost: float | None = None
    dedupe: bool | None = None

    def check(self, windows: Sequence[str] = ()) -> None:
        """See to it that the contract allows all of it.

        Args:
            windows: the completion windows that the operator offers; if none, any is allowed.

        Raises:
            InvalidRequestError: something of it is not allowed; the error's `param` says what.
        """
        if self.endpoint is not None and self.endpoint not in ENDPOINTS:
            raise _unsupported("endpoint", self.endpoint, ENDPOINTS)
        if windows and self.completion_window not in windows:
            raise _unsupported("completion_window", self.completion_window, windows)
        window_seconds(self.completion_window)
        _check_metadata(self.metadata or {})
        max_cost_nanos(self.max_cost)

    def batch(self, batch_id: str, input_file_id: str, now: float, tenant: str = DEFAULT_TENANT) -> BatchObject:
        """Give the batch on these terms, as it begins."""
        return BatchObject(
            id=batch_id,
            tenant=tenant,
            endpoint=self.endpoint or "",
            input_file_id=input_file_id,
            completion_window=self.completion_window,
            status=Status.VALIDATING,
            created_at=int(now),
            expires_at=int(now) + window_seconds(self.completion_window),
            metadata=None if self.metadata is None else dict(self.metadata),
            output_expires_after_s=self.output_expires_after_s,
            max_cost_nanos=max_cost_nanos(self.max_cost),
            dedupe=self.dedupe,
        )


def max_cost_nanos(max_cost: float | None) -> int | None:
    """Give a budget of so many dollars in nano-dollars; None where there is none.

    Raises:
        InvalidRequestError: it is no number of dollars above 0.
    """
    if max_cost is None:
        return None
    is_number = isinstance(max_cost, int | float) and not isinstance(max_cost, bool)
    if not is_number or not 0 < max_cost <= _MOST_DOLLARS:
        message = (
            f"Invalid 'max_cost': expected dollars above 0 and at most {_MOST_DOLLARS:,}, but got {max_cost!r:.80}."
        )
        raise InvalidRequestError(message, "max_cost", "invalid_value")
    return max(1, round(Decimal(str(max_cost)) * NANOS_PER_DOLLAR))


def check_batch_id(batch_id: str) -> None:
    """See to it that an id that its batch's creator chose can be one: what comes after `batch` is free.

    Raises:
        InvalidRequestError: it cannot.
    """
    if not _BATCH_ID.fullmatch(batch_id):
        raise InvalidRequestError(
            f"batch_id {_shown(batch_id)!r} is not 'batch' and 1 to 59 letters, digits, underscores and hyphens.",
            "batch_id",
            "invalid_value",
        )


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > _METADATA_PAIRS:
        expected = f"Expected an object with at most {_METADATA_PAIRS} properties"
        raise InvalidRequestError(
            f"Invalid 'metadata': too many properties. {expected}, but got an object with {len(metadata)} properties "
            "instead.",
            "metadata",
            "object_above_max_properties",
        )
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            wrong = value if isinstance(key, str) else key
            raise InvalidRequestError(
                f"Invalid type for 'metadata.{_shown(str(key))}': expected a string, but got {wrong!r:.80} instead.",
                f"metadata.{_shown(str(key))}",
                "invalid_type",
            )
        param = f"metadata.{_shown(key)}"
        _check_length("metadata", "property name", key, _METADATA_KEY_CHARS, "property_name_above_max_length")
        _check_length(param, "string", value, _METADATA_VALUE_CHARS, "string_above_max_length")


def _check_length(param: str, what: str, text: str, most: int, code: str) -> None:
    if len(text) > most:
        expected = f"Expected a string with maximum length {most}, but got a string with length {len(text)} instead."
        raise InvalidRequestError(f"Invalid '{param}': {what} too long. {expected}", param, code)


def _unsupported(param: str, value: str, supported: Sequence[str]) -> InvalidRequestError:
    names = [f"'{name}'" for name in supported]
    listed = ", ".join(names) if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"
    if len(names) == 2:  # noqa: PLR2004 (two need no comma)
        listed = " and ".join(names)
    message = f"Invalid value: '{_shown(value)}'. Supported values are: {listed}."
    return InvalidRequestError(message, param, "invalid_value")


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
