"""What a batch of an input file may cost, from reading the file alone: nothing is sent, and no tokenizer is at hand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchord.contract import Usage
from batchord.errors import BlobNotFoundError
from batchord.prices import in_dollars
from batchord.service import files
from batchord.storage import paths
from batchord.validation import Accepted, LineSplitter, parse_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchord.prices import Price
    from batchord.routing import Route, Routes
    from batchord.service.backend import Backend
    from batchord.validation import Line

_BYTES_A_TOKEN: Final = 4
_MOST_MODELS: Final = 1_000
_NO_OUTPUT: Final = frozenset({"/v1/embeddings", "/v1/moderations"})
_NOT_TEXT: Final = frozenset({"image_url", "input_audio", "file", "file_data", "image", "audio", "video"})
"""Parts of a message that are no text, whatever their strings say."""


class _Asked(msgspec.Struct):
    """What tells how much goes in and how much may come out; whether it makes sense is the provider's to find."""

    messages: Any = None
    input: Any = None
    prompt: Any = None
    instructions: Any = None
    tools: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: Any = None
    max_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None

    @property
    def input_tokens(self) -> int:
        """Estimate what goes in."""
        texts = (self.messages, self.input, self.prompt, self.instructions)
        return sum(map(_tokens, texts)) + _tokens_of(len(self.tools))

    @property
    def most_output(self) -> int | None:
        """Give the bound that the request sets on its output; None where it sets none."""
        bounds = (self.max_completion_tokens, self.max_tokens, self.max_output_tokens)
        bound = next((bound for bound in bounds if type(bound) is int), None)
        choices = self.n if type(self.n) is int else 1
        return None if bound is None else max(0, bound) * max(1, choices)


_DECODER: Final = msgspec.json.Decoder(_Asked)


@dataclass(frozen=True, slots=True)
class Sums:
    """What some requests may take; costs in dollars. None: not bounded, or of no known price."""

    requests: int
    input_tokens: int
    max_output_tokens: int | None
    min_cost: float | None
    max_cost: float | None


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """What the requests for one model may take; an empty name stands for the models past the first thousand."""

    provider: str
    model: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch of a file may take, in all and by model; `invalid` counts the lines that would have it refused."""

    file_id: str
    invalid: int
    total: Sums
    models: Sequence[ModelEstimate]


async def estimate(backend: Backend, tenant: str, file_id: str) -> Estimate:
    """Read a file as a batch's input, in constant memory.

    Raises:
        NotFoundError: the tenant has no such file, or its bytes are not there.
    """
    file = await files.find(backend, tenant, file_id)
    now = time.time()
    reading = _Reading(backend.routes, lambda route: backend.prices.of(route.provider, route.model, now))
    splitter = LineSplitter(backend.settings.max_line_bytes)
    try:
        async for chunk in backend.blobs.stream(paths.file(file.id)):
            await asyncio.to_thread(_take, reading, splitter, chunk)  # a thread, since it would hold up other requests
    except BlobNotFoundError:  # deleted meanwhile, or produced by a batch that still runs
        raise files.not_found(file_id) from None
    await asyncio.to_thread(_take, reading, splitter, None)
    return reading.result(file.id)


class _Tally:
    """Sums under way; None has met a request that makes a sum unknown."""

    def __init__(self) -> None:
        self.requests = 0
        self.input_tokens = 0
        self.most_output: int | None = 0
        self.min_nanos: int | None = 0
        self.max_nanos: int | None = 0

    def add(self, input_tokens: int, most_output: int | None, price: Price | None) -> None:
        """Count one request."""
        self.requests += 1
        self.input_tokens += input_tokens
        self.most_output = _plus(self.most_output, most_output)
        self.min_nanos = _plus(self.min_nanos, _cost(price, input_tokens, 0))
        self.max_nanos = _plus(self.max_nanos, _cost(price, input_tokens, most_output))

    def sums(self) -> Sums:
        """Give the sums so far."""
        return Sums(
            self.requests, self.input_tokens, self.most_output, in_dollars(self.min_nanos), in_dollars(self.max_nanos)
        )


class _Reading:
    """A file as it streams past; it keeps no line."""

    def __init__(self, routes: Routes, price_of: Callable[[Route], Price | None]) -> None:
        self._routes = routes
        self._price_of = price_of
        self._total = _Tally()
        self._models: dict[tuple[str, str], _Tally] = {}
        self._invalid = 0

    def take(self, lines: Sequence[Line]) -> None:
        """Count some lines."""
        for line in lines:
            accepted = None if line.raw is None else parse_line(line.number, line.raw)
            route = self._routes.route(accepted.model) if isinstance(accepted, Accepted) else None
            if not isinstance(accepted, Accepted) or route is None:
                self._invalid += 1
            else:
                self._count(accepted, route)

    def _count(self, accepted: Accepted, route: Route) -> None:
        input_tokens, output = _bounds(accepted)
        price = self._price_of(route)
        for tally in (self._total, self._tally(route)):
            tally.add(input_tokens, output, price)

    def _tally(self, route: Route) -> _Tally:
        key = (route.provider, route.model)
        if key not in self._models and len(self._models) >= _MOST_MODELS:
            key = (route.provider, "")
        return self._models.setdefault(key, _Tally())

    def result(self, file_id: str) -> Estimate:
        """Give what was counted."""
        models = [ModelEstimate(*key, tally.sums()) for key, tally in sorted(self._models.items())]
        return Estimate(file_id, self._invalid, self._total.sums(), models)


def _take(reading: _Reading, splitter: LineSplitter, chunk: bytes | None) -> None:
    """Count the lines that end in a chunk; None is the end of the file."""
    reading.take(splitter.close() if chunk is None else splitter.feed(chunk))


def _bounds(accepted: Accepted) -> tuple[int, int | None]:
    """Give the input tokens of a request, estimated, and the bound of its output, None where there is none."""
    asked = _DECODER.decode(accepted.body)
    output = 0 if accepted.url in _NO_OUTPUT else asked.most_output
    try:
        return asked.input_tokens, output
    except RecursionError:  # nested too deep for us, which is no reason for a provider to refuse it
        return _tokens_of(len(accepted.body)), output


def _tokens_of(size_bytes: int) -> int:
    return -(-size_bytes // _BYTES_A_TOKEN)


def _tokens(part: Any) -> int:
    """Estimate the tokens of a part of a body: a token for each 4 bytes of text, or as many as there are numbers."""
    if isinstance(part, str):
        return _tokens_of(len(part.encode(errors="replace")))
    if isinstance(part, dict):
        return sum(_tokens(value) for name, value in part.items() if name not in _NOT_TEXT)
    if isinstance(part, list):
        return sum(1 if isinstance(item, int) else _tokens(item) for item in part)
    return 0


def _cost(price: Price | None, input_tokens: int, output_tokens: int | None) -> int | None:
    if price is None or output_tokens is None:
        return None
    return price.cost(Usage(input_tokens=input_tokens, output_tokens=output_tokens))


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
