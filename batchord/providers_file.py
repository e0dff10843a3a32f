"""The providers file: read, and every problem in it said with its line, field and mend. Not for what the fields do."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from batchord.errors import ConfigError
from batchord.explanations import explain
from batchord.providers_sense import doubts, misfits
from batchord.routing import ModelLimits, OwnPrice, Provider, Routes
from batchord.toml_lines import lines_of, nearest_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batchord.providers_sense import Remark
    from batchord.settings import Settings
    from batchord.toml_lines import Path as KeyPath

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"
_INNER: Final[dict[str, type[BaseModel]]] = {"limits": ModelLimits, "prices": OwnPrice}
"""What the tables in a provider's tables hold."""
_NO_SUCH: Final = "There is no such setting"


class ProvidersFile(NamedTuple):
    """What a file says, and `notes` on what is allowed and perhaps not meant, a line of text each."""

    routes: Routes
    notes: list[str]


def load_routes(settings: Settings, environ: Mapping[str, str], *, needs_keys: bool = False) -> Routes:
    """Give the configured providers: those of the providers file, or else the one that OPENAI_* variables describe.

    Args:
        settings: which file, if any.
        environ: the environment.
        needs_keys: whether the variable of every provider's key must be set, as where requests are sent.

    Raises:
        ConfigError: there are none, or the file has problems; the message says all of them, and what to set.
    """
    if settings.providers is not None:
        return read_providers_file(settings.providers, environ if needs_keys else None).routes
    provider = _openai_provider(environ)
    if provider is None:
        raise ConfigError(
            "No provider is configured. Name a providers file (--providers FILE, or BATCHORD_PROVIDERS), "
            "or set OPENAI_BASE_URL (for example http://127.0.0.1:8000/v1) and, if the server wants it, OPENAI_API_KEY."
        )
    return Routes([provider])


def read_providers_file(path: Path, environ: Mapping[str, str] | None = None) -> ProvidersFile:
    """Read a file; with the environment, see to it too that the variable of every provider's key is set.

    Raises:
        ConfigError: it cannot be read, or has problems; the message says all of them, a line each, by file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The providers file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"The providers file {path} is not valid TOML: {error}.") from None
    return parse_providers(text, str(path), environ)


def parse_providers(text: str, name: str, environ: Mapping[str, str] | None = None) -> ProvidersFile:
    """Read the text of a file of this name; see `read_providers_file`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(text, name, str(error))) from None
    named = tables.get("providers")
    if not isinstance(named, dict) or not named:
        raise ConfigError(f"The providers file {name} names no provider; it needs a table such as [providers.local].")
    problems = [_unknown((key,), ["providers"]) for key in tables if key != "providers"]
    providers = [provider for key, table in named.items() if (provider := _provider(key, table, problems))]
    problems += misfits(providers, named, environ)
    lines = lines_of(text)
    if problems:
        raise ConfigError("\n".join(_sentences(name, lines, problems)))
    return ProvidersFile(Routes(providers), _sentences(name, lines, doubts(providers)))


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
        problems = [f"OPENAI_{'_'.join(map(str, path)).upper()}: {text}" for path, text in explain(error)]
        raise ConfigError("\n".join(problems)) from None


def _provider(name: str, table: object, problems: list[Remark]) -> Provider | None:
    """Give a provider, or note what is wrong with its table."""
    if not isinstance(table, dict):
        problems.append((("providers", name), f"is not a table; write [providers.{name}]."))
        return None
    if "name" in table:
        problems.append((("providers", name, "name"), "a provider's name is its table's: leave this out."))
    try:
        return Provider(**{**table, "name": name})
    except ValidationError as error:
        found = (_placed(path, text) for path, text in explain(error))
        problems += (_mended(("providers", name, *path), text) for path, text in found)
        return None


def _placed(path: KeyPath, text: str) -> Remark:
    """Give a problem of a whole table to the field that its words begin with."""
    field, colon, rest = text.partition(": ")
    return ((field,), rest) if not path and colon and field in Provider.model_fields else (path, text)


def _mended(path: KeyPath, text: str) -> Remark:
    """Add to an unknown field which one may have been meant."""
    if text != _NO_SUCH:
        return path, text
    holder: type[BaseModel] = _INNER[str(path[2])] if path[2] in _INNER else Provider
    return _unknown(path, holder.model_fields)


def _unknown(path: KeyPath, known: Iterable[str]) -> Remark:
    close = get_close_matches(str(path[-1]), known, n=1)
    return path, f"{_NO_SUCH}{f'; did you mean {close[0]}?' if close else '.'}"


def _sentences(name: str, lines: Mapping[KeyPath, int], remarks: Iterable[Remark]) -> list[str]:
    placed = sorted((nearest_line(lines, path) or 1, path, text) for path, text in remarks)
    return [f"{name}:{line}: {'.'.join(map(str, path))}: {text}" for line, path, text in placed]


def _syntax_error(text: str, name: str, error: str) -> str:
    what, _, where = error.partition(" (at ")
    place = re.match(r"line (\d+), column (\d+)", where)
    line, column = (place[1], f" (column {place[2]})") if place else (len(text.splitlines()) or 1, " (at the end)")
    return f"{name}:{line}: not valid TOML: {what}{column}"
