"""What an operator can set: one frozen class, read from BATCHORD_* variables once a process, then passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from batchord.errors import BatchordError, ConfigError
from batchord.explanations import explain
from batchord.providers_file import load_routes
from batchord.windows import window_seconds

__all__ = ["Settings", "load_routes", "read_settings"]

_REDIS_SCHEMES: Final = {"redis", "rediss", "unix", "redis+socket"}


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
    tenant_weights: Annotated[dict[str, Annotated[float, Field(gt=0, le=1_000)]], NoDecode] = {}
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
    give_up_after_s: float | None = Field(default=None, gt=0)
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

    @field_validator("tenant_weights", mode="before")
    @classmethod
    def _split_weights(cls, weights: object) -> object:
        if not isinstance(weights, str):
            return weights
        pairs = [entry.partition("=") for entry in weights.replace(" ", "").split(",") if entry]
        if not all(tenant and weight for tenant, _, weight in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
            raise ValueError("not tenant=weight by commas, each tenant once, such as a=3,b=1")
        return {tenant: weight for tenant, _, weight in pairs}

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
        problems = [f"BATCHORD_{'.'.join(map(str, path)).upper()}: {text}" for path, text in explain(error)]
        raise ConfigError("\n".join(problems)) from None
