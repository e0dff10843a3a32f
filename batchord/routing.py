"""Which provider serves a model: the providers' configuration and the pure rule that picks one. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from batchord.presets import with_preset

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence


_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MOST_WAYS: Final = 1_000
LEARNED_MOST: Final = 1_000
"""Where a provider states no `max_concurrency`, the fleet finds one, and stops here."""


def _http_url(url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return url.rstrip("/")


def _variable_name(name: str) -> str:
    if name and not name.isidentifier():
        raise ValueError("must be the name of a variable, such as OPENAI_API_KEY, and never the key")
    return name


def _provider_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be of lower-case letters, digits, _ and -, such as my-server; at most 63")
    return name


class OwnPrice(BaseModel):
    """What an operator pays, in dollars a million tokens; cached input costs what other input does if not said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Decimal = Field(ge=0)
    cached: Decimal | None = Field(default=None, ge=0)
    output: Decimal = Field(ge=0)


class ModelLimits(BaseModel):
    """What a provider allows for the models of one glob, in the fleet; what is not said is not limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_concurrency: int | None = Field(default=None, ge=1, le=10_000)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class Provider(BaseModel):
    """One configured upstream. Times are in seconds; `models`, `prices` and `limits` go by shell globs, with case.

    `max_concurrency`, `requests_per_minute` and `tokens_per_minute` hold for the whole fleet; what is not said is
    learned. `timeout_s` is for one attempt, `read_timeout_s` for a silence within it, `max_line_s` for a line in all.
    `model_names` says what this provider calls a model that lines name otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_provider_name)]
    kind: Literal["openai", "anthropic", "simulated"] = "openai"
    preset: str = ""
    base_url: Annotated[str, AfterValidator(_http_url)] = ""
    api_key_env: Annotated[str, AfterValidator(_variable_name)] = ""
    models: tuple[str, ...] = ("*",)
    prices: dict[str, OwnPrice] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    single_model: bool = False
    model_names: dict[str, str] = Field(default_factory=dict)
    max_concurrency: int | None = Field(default=None, ge=1, le=10_000)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    limits: dict[str, ModelLimits] = Field(default_factory=dict)
    weight: float | None = Field(default=None, gt=0, le=1_000)
    fallback: tuple[str, ...] = ()
    timeout_s: float = Field(default=600, gt=0)
    connect_timeout_s: float = Field(default=10, gt=0)
    read_timeout_s: float | None = Field(default=None, gt=0)
    max_attempts: int = Field(default=5, ge=1, le=100)
    max_line_s: float = Field(default=86_400, gt=0)
    prefix_order: bool = False
    endpoints: tuple[str, ...] = ()
    rate_headers: Literal["openai", "anthropic", "daily_requests", "mistral", "none"] = "openai"
    anthropic_version: str = "2023-06-01"
    default_max_tokens: int = Field(default=4096, ge=1)
    latency_s: float = Field(default=0.2, ge=0)
    failure_rate: float = Field(default=0, ge=0, le=1)

    @property
    def most_in_flight(self) -> int:
        """The requests in flight that the fleet may ever have here: as stated, or the bound of what it learns."""
        return self.max_concurrency or LEARNED_MOST

    def serves(self, model: str) -> bool:
        """Whether it has a name of its own for a model, or one of the globs matches it."""
        return model in self.model_names or any(fnmatchcase(model, pattern) for pattern in self.models)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, table: object) -> object:
        return with_preset(table) if isinstance(table, dict) else table

    @model_validator(mode="after")
    def _needs_a_base_url(self) -> Provider:
        if self.kind == "openai" and not self.base_url:
            raise ValueError('base_url: missing; say for example base_url = "http://127.0.0.1:8000/v1"')
        return self


@dataclass(frozen=True, slots=True)
class Route:
    """Whose queue a line joins, the model's name without the provider's, and whether a batch may name only one model.

    `is_named` says that the line itself named the provider, so that no other one of its weight takes it.
    """

    provider: str
    model: str
    single_model: bool = False
    is_named: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """A provider that may answer a line, and what it calls the line's model."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Ways:
    """Who may answer a line: the peers share such lines by weight, the fallbacks take what no peer can serve now."""

    peers: tuple[Way, ...]
    fallbacks: tuple[Way, ...] = ()

    def without(self, providers: Container[str]) -> Ways:
        """Give what is left if some providers cannot serve the line at all."""
        return Ways(
            tuple(way for way in self.peers if way.provider not in providers),
            tuple(way for way in self.fallbacks if way.provider not in providers),
        )


class Routes:
    """The configured providers in the order of the file: the first whose glob matches a model serves it.

    `every` has those, too, that get no new lines and only answer the ones that wait for them.
    """

    def __init__(self, providers: Sequence[Provider], retired: Iterable[Provider] = ()) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self.every = {provider.name: provider for provider in retired} | self.providers
        self._ways: dict[tuple[str, str, bool], Ways] = {}

    def route(self, model: str) -> Route | None:
        """Give the route of a line's model, or None where no provider serves it.

        `provider:model` names the provider; a colon that follows no provider's name belongs to the model.
        """
        prefix, colon, rest = model.partition(":")
        if colon and rest and prefix in self.providers:
            return Route(prefix, rest, self.providers[prefix].single_model, is_named=True)
        for provider in self.providers.values():
            if provider.serves(model):
                return Route(provider.name, model, provider.single_model)
        return None

    def ways(self, name: str, model: str, *, is_named: bool = False) -> Ways:
        """Give who may answer the lines of a model that are in a provider's queue, itself first."""
        asked = (name, model, is_named)
        if asked not in self._ways:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            self._ways[asked] = self._find_ways(*asked)
        return self._ways[asked]

    def _find_ways(self, name: str, model: str, is_named: bool) -> Ways:
        own, peers = self.every[name], [name]
        if own.weight is not None and not is_named:
            peers += [p.name for p in self.providers.values() if p.weight is not None and p.serves(model)]
        peers = list(dict.fromkeys(peers))
        fallbacks = [other for other in own.fallback if other in self.providers and other not in peers]
        return Ways(tuple(self._way(peer, model) for peer in peers), tuple(self._way(f, model) for f in fallbacks))

    def _way(self, name: str, model: str) -> Way:
        return Way(name, self.every[name].model_names.get(model, model))

    def helpers_of(self, name: str) -> frozenset[str]:
        """Give the other providers that may answer lines of a provider's queue, whatever their model."""
        own = self.every[name]
        peers = [p.name for p in self.providers.values() if p.weight is not None] if own.weight is not None else []
        return frozenset(peers) - {name}

    @property
    def patterns(self) -> list[str]:
        """What is configured, as `name: glob, glob`, for the error about an unknown model."""
        return [f"{provider.name}: {', '.join(provider.models)}" for provider in self.providers.values()]
