"""What an operator can set: one frozen class, read from BATCHORD_* variables once a process, then passed down."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from batchord.errors import BatchordError, ConfigError
from batchord.routing import Provider, Routes
from batchord.windows import window_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

OPENAI_BASE_URL = "https://api.openai.com/v1"
_REDIS_SCHEMES: Final = {"redis", "rediss", "unix", "redis+socket"}
_WORDS: Final = {
    "dict_type": "Input should be a table",
    "extra_forbidden": "There is no such setting",
    "model_type": "Input should be a table such as { input = 1.0, output = 2.0 }",
    "tuple_type": 'Input should be a list such as ["a", "b"]',
}
"""What replaces pydantic's words where they are Python's, by the kind of the problem."""


class Settings(BaseSettings):
    """The settings of one process; each field is the variable BATCHORD_<FIELD>, which is not set if it is empty."""

    model_config = SettingsConfigDict(env_prefix="BATCHORD_", env_ignore_empty=True, frozen=True, extra="ignore")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False)
    redis_timeout_s: float = Field(default=10, gt=0)
    storage_url: str = Field(default="", repr=False)
    providers: Path | None = None
    data_dir: Path = Path("batchord-data")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"

    max_lines: int = Field(default=1_000_000, ge=1)
    max_line_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    max_problems: int = Field(default=100, ge=1)
    shard_lines: int = Field(default=1_000, ge=1, le=1_000)
    shard_bytes: int = Field(default=8_000_000, ge=1)
    window_lines: int = Field(default=4_000, ge=1)
    spill_bytes: int = Field(default=128 * 1024, ge=1024)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    api_keys: str = Field(default="", repr=False)
    completion_windows: Annotated[tuple[str, ...], NoDecode] = ("24h",)
    max_batch_file_bytes: int = Field(default=200 * 1024 * 1024, ge=1)
    max_file_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    max_upload_bytes: int = Field(default=8 * 1024**3, ge=1)
    max_part_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    upload_life_s: int = Field(default=3_600, ge=1)

    visibility_timeout_s: float = Field(default=60, gt=0)
    fleet_size: int = Field(default=1, ge=1)
    claim_s: float = Field(default=30, gt=0)
    stall_s: float = Field(default=30, gt=0)
    sweep_interval_s: float = Field(default=5, gt=0)
    drain_timeout_s: float = Field(default=600, ge=0)
    retention_s: int = Field(default=30 * 86_400, ge=60)

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, redis_url: str) -> str:
        try:
            url = urlsplit(redis_url)
            is_one = url.scheme in _REDIS_SCHEMES and url.port != 0
        except ValueError:  # the port is none, or brackets are not closed
            is_one = False
        if not is_one:
            raise ValueError("not the URL of a Redis; write for example redis://127.0.0.1:6379/0 or unix:///path")
        return redis_url

    @field_validator("completion_windows", mode="before")
    @classmethod
    def _split_windows(cls, windows: object) -> object:
        return tuple(filter(None, windows.replace(" ", "").split(","))) if isinstance(windows, str) else windows

    @field_validator("completion_windows")
    @classmethod
    def _check_windows(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        if not windows:
            raise ValueError("there must be one at least, such as 24h")
        try:
            return tuple(window for window in windows if window_seconds(window))
        except BatchordError as error:
            raise ValueError(str(error)) from None

    @property
    def blobs_url(self) -> str:
        """Where the bytes are: `storage_url`, or else the folder `storage` of the data directory."""
        return self.storage_url or (self.data_dir.resolve() / "storage").as_uri()


def read_settings(**given: Any) -> Settings:
    """Read the environment, with `given` fields taking its place.

    Raises:
        ConfigError: a variable's value is not of its kind.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain("BATCHORD_", error))) from None


def load_routes(settings: Settings, environ: Mapping[str, str]) -> Routes:
    """Give the configured providers: those of the providers file, or else the one that OPENAI_* variables describe.

    Raises:
        ConfigError: there are none, or the file cannot be read; the message says what to set.
    """
    if settings.providers is not None:
        return Routes(_read_providers(settings.providers))
    provider = _openai_provider(environ)
    if provider is None:
        raise ConfigError(
            "No provider is configured. Name a providers file (--providers FILE, or BATCHORD_PROVIDERS), "
            "or set OPENAI_BASE_URL (for example http://127.0.0.1:8000/v1) and, if the server wants it, OPENAI_API_KEY."
        )
    return Routes([provider])


def require_keys(routes: Routes, environ: Mapping[str, str]) -> None:
    """See to it that the variable of every provider's key is set, before anything is sent.

    Raises:
        ConfigError: one is not.
    """
    for provider in routes.providers.values():
        if provider.api_key_env and not environ.get(provider.api_key_env):
            raise ConfigError(
                f"Provider {provider.name}: the variable {provider.api_key_env} that api_key_env names is not set."
            )


def _openai_provider(environ: Mapping[str, str]) -> Provider | None:
    base_url, key = environ.get("OPENAI_BASE_URL", ""), environ.get("OPENAI_API_KEY", "")
    if not base_url and not key:
        return None
    try:
        return Provider(
            name="openai",
            base_url=base_url or OPENAI_BASE_URL,
            api_key_env="OPENAI_API_KEY" if key else "",
            models=("*",),
        )
    except ValidationError as error:
        raise ConfigError("\n".join(_explain("OPENAI_", error))) from None


def _read_providers(path: Path) -> list[Provider]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("providers")
    except OSError as error:
        raise ConfigError(f"The providers file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The providers file {path} is not valid TOML: {error}.") from None
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"The providers file {path} names no provider; it needs a table such as [providers.local].")
    return [_provider(path, name, table) for name, table in tables.items()]


def _provider(path: Path, name: str, table: object) -> Provider:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: providers.{name} is not a table; write [providers.{name}].")
    try:
        return Provider(**{"name": name, **table})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in _explain(f"providers.{name}.", error))) from None


def _explain(prefix: str, error: ValidationError) -> list[str]:
    """Say each problem as `field: what is wrong`, without the value: it may be a secret."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    upper = prefix.isupper()
    fields = [".".join(str(part) for part in problem["loc"]) for problem in problems]
    return [
        f"{prefix}{field.upper() if upper else field}: {_words(problem)}".replace(".:", ":")
        for field, problem in zip(fields, problems, strict=True)
    ]


def _words(problem: ErrorDetails) -> str:
    return _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
