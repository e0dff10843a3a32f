"""How many tokens a request will use, before it is sent: from its bytes, and from what was reported. Pure, no I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from batchord.contract import Usage

_TOKENS_PER_BYTE: Final = 0.25
_OUTPUT_TOKENS: Final = 256
_MOST_OUTPUT: Final = re.compile(rb'"max_(?:completion_|output_)?tokens"\s*:\s*(\d{1,9})')
_MEMORY: Final = 50
"""A mean is over about so many of the last answers, so that it follows another batch."""
_MOST_MODELS: Final = 1_000


class _Seen:
    """What the answers of one model reported, on average."""

    __slots__ = ("answers", "output_tokens", "tokens_per_byte")

    def __init__(self) -> None:
        self.answers = 0
        self.tokens_per_byte = _TOKENS_PER_BYTE
        self.output_tokens = 0.0

    def add(self, body_bytes: int, usage: Usage) -> None:
        self.answers = min(self.answers + 1, _MEMORY)
        self.tokens_per_byte += (usage.input_tokens / body_bytes - self.tokens_per_byte) / self.answers
        self.output_tokens += (usage.output_tokens - self.output_tokens) / self.answers


class Estimates:
    """The tokens of requests to one provider, by model."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def of(self, model: str, body: bytes) -> int:
        """Estimate input and output of a request; of a model that has not answered, as much output as it may make."""
        seen = self._seen.get(model)
        if seen is None:
            return round(len(body) * _TOKENS_PER_BYTE) + _most_output(body)
        return round(len(body) * seen.tokens_per_byte + seen.output_tokens)

    def learn(self, model: str, body_bytes: int, usage: Usage) -> None:
        """Take in what an answer reported; one without a count of tokens says nothing."""
        if usage.input_tokens <= 0 or body_bytes <= 0:
            return
        if model not in self._seen and len(self._seen) >= _MOST_MODELS:
            del self._seen[next(iter(self._seen))]
        self._seen.setdefault(model, _Seen()).add(body_bytes, usage)


def _most_output(body: bytes) -> int:
    stated = _MOST_OUTPUT.search(body)
    return int(stated[1]) if stated else _OUTPUT_TOKENS
