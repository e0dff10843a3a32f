"""Which provider serves a model: the providers' configuration and the pure rule that picks one. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
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
    rate_headers: Literal["openai", "anthropic", "daily_requests", "none"] = "openai"
    anthropic_version: str = "2023-06-01"
    default_max_tokens: int = Field(default=4096, ge=1)
    latency_s: float = Field(default=0.2, ge=0)
    failure_rate: float = Field(default=0, ge=0, le=1)

    @property
    def most_in_flight(self) -> int:
        """The requests in flight that the fleet may ever have here: as stated, or the bound of what it learns."""
        return self.max_concurrency or LEARNED_MOST

    def serves(self, model: str) -> bool:
        """Whether one of the globs matches a model."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    @model_validator(mode="after")
    def _needs_a_base_url(self) -> Provider:
        if self.kind == "openai" and not self.base_url:
            raise ValueError('base_url: missing; say for example base_url = "http://127.0.0.1:8000/v1"')
        return self


@dataclass(frozen=True, slots=True)
class Route:
    """Where a line goes: the provider's name, the model's name there, and whether a batch may name only one model."""

    provider: str
    model: str
    single_model: bool = False


class Routes:
    """The configured providers in the order of the file: the first whose glob matches a model serves it."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.providers = {provider.name: provider for provider in providers}

    def route(self, model: str) -> Route | None:
        """Give the route of a line's model, or None where no provider serves it.

        `provider:model` names the provider; a colon that follows no provider's name belongs to the model.
        """
        prefix, colon, rest = model.partition(":")
        if colon and rest and prefix in self.providers:
            return Route(prefix, rest, self.providers[prefix].single_model)
        for provider in self.providers.values():
            if provider.serves(model):
                return Route(provider.name, model, provider.single_model)
        return None

    @property
    def patterns(self) -> list[str]:
        """What is configured, as `name: glob, glob`, for the error about an unknown model."""
        return [f"{provider.name}: {', '.join(provider.models)}" for provider in self.providers.values()]
