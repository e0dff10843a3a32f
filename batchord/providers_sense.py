"""Whether providers fit together and into their environment: pure rules over what each of them says rightly."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from batchord.contract import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from batchord.routing import Provider
    from batchord.toml_lines import Path

Remark = tuple["Path", str]
"""What there is to say of a path in the file."""

_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9a-z-]+): ([^\x00\r\n]*)")  # RFC 9110, section 5
_A_REQUESTS_OWN: Final = frozenset({"content-length", "idempotency-key", "transfer-encoding"})


def misfits(
    providers: Sequence[Provider], names: Container[str], environ: Mapping[str, str] | None
) -> Iterator[Remark]:
    """Say what keeps the providers from being used together; `names` are also those of the unusable ones.

    Without an environment nobody asks whether the keys are in it.
    """
    for provider in providers:
        yield from _empty_globs(provider)
        yield from _unknown_fallbacks(provider, names)
        yield from _unknown_endpoints(provider)
        yield from _unsendable_headers(provider)
        yield from _unreachable(provider)
        yield from _too_long_url(provider)
        if environ is not None:
            yield from _missing_key(provider, environ)
    yield from _cycles(providers)


def doubts(providers: Sequence[Provider]) -> Iterator[Remark]:
    """Say what is allowed and perhaps not meant."""
    spare = {name for provider in providers for name in provider.fallback}
    for number, provider in enumerate(providers):
        yield from _unreached_limits(provider)
        if provider.name not in spare:
            yield from _unreached_models(provider, providers[:number])


def key_variable(provider: Provider) -> str:
    """Give the variable of a provider's key; as with the `anthropic` SDK, Anthropic's own needs not be said."""
    is_anthropics = provider.kind == "anthropic" and not provider.base_url
    return provider.api_key_env or ("ANTHROPIC_API_KEY" if is_anthropics else "")


def is_sendable(name: str, value: str) -> bool:
    """Whether a header, by its lower-case name, can be sent, and is not one that each request has for itself."""
    return name not in _A_REQUESTS_OWN and _HEADER.fullmatch(f"{name}: {value}") is not None


def _missing_key(provider: Provider, environ: Mapping[str, str]) -> Iterator[Remark]:
    variable = key_variable(provider)
    key = environ.get(variable, "").strip()
    where = ("providers", provider.name, "api_key_env")
    if variable and not key:
        yield where, f"the variable {variable} is not set; it should hold the API key."
    elif not (key.isascii() and key.isprintable()):
        yield where, f"what the variable {variable} holds cannot be an API key."


def _unreachable(provider: Provider) -> Iterator[Remark]:
    try:
        url = urlsplit(provider.base_url)
        leads_somewhere = not provider.base_url or (bool(url.hostname) and url.port != 0)
    except ValueError:  # brackets that are not closed, or a port that is none
        leads_somewhere = False
    if not leads_somewhere:
        text = "leads nowhere; write for example http://127.0.0.1:8000/v1"
        yield ("providers", provider.name, "base_url"), text


def _too_long_url(provider: Provider) -> Iterator[Remark]:
    """Say that a base URL holds what is appended to it; `/v1` is appended by the kind `anthropic` alone."""
    url = provider.base_url
    too_much = [end for endpoint in ENDPOINTS if url.endswith(end := endpoint.removeprefix("/v1"))]
    if provider.kind == "anthropic":
        too_much += [end for end in ("/v1", "/v1/messages") if url.endswith(end)]
    if too_much:
        yield ("providers", provider.name, "base_url"), f"leave out {max(too_much, key=len)}, which batchord appends."


def _unknown_endpoints(provider: Provider) -> Iterator[Remark]:
    for number, endpoint in enumerate(provider.endpoints):
        if endpoint not in ENDPOINTS:
            yield ("providers", provider.name, "endpoints", number), f"there are {', '.join(ENDPOINTS)}."


def _unsendable_headers(provider: Provider) -> Iterator[Remark]:
    for name, value in provider.headers.items():
        if not is_sendable(name.lower(), value):
            yield ("providers", provider.name, "headers", name), "is batchord's own, or cannot be sent."


def _empty_globs(provider: Provider) -> Iterator[Remark]:
    where = ("providers", provider.name)
    for number, pattern in enumerate(provider.models):
        if not pattern:
            yield (*where, "models", number), 'the empty glob matches no model; "*" matches each.'
    for table in ("limits", "prices"):
        if "" in getattr(provider, table):
            yield (*where, table, ""), 'the empty glob matches no model; "*" matches each.'


def _unknown_fallbacks(provider: Provider, names: Container[str]) -> Iterator[Remark]:
    for number, other in enumerate(provider.fallback):
        if other not in names:
            yield ("providers", provider.name, "fallback", number), f"this file has no provider {other}."


def _cycles(providers: Sequence[Provider]) -> Iterator[Remark]:
    """Name each cycle of fallbacks once, at the provider of it that is first in the file."""
    ways = {provider.name: provider.fallback for provider in providers}
    named: set[str] = set()
    for name in ways:
        cycle = _way_back(name, ways)
        if cycle and not named & set(cycle):
            named.update(cycle)
            text = f"the fallbacks go round in a circle: {' -> '.join([*cycle, name])}; take one of them out."
            yield ("providers", name, "fallback"), text


def _way_back(name: str, ways: Mapping[str, Sequence[str]]) -> list[str]:
    """Give a shortest way from a provider over its fallbacks back to itself, or nothing."""
    ahead, seen = [[name]], {name}
    for way in ahead:
        for other in ways.get(way[-1], ()):
            if other == name:
                return way
            if other not in seen:
                seen.add(other)
                ahead.append([*way, other])
    return []


def _unreached_limits(provider: Provider) -> Iterator[Remark]:
    patterns = list(provider.limits)
    for number, pattern in enumerate(patterns):
        before = next((other for other in patterns[:number] if _covers(other, pattern)), None)
        if before is not None:
            text = f'never used: "{before}", which stands before it, matches the same models; put it after this one.'
            yield ("providers", provider.name, "limits", pattern), text


def _unreached_models(provider: Provider, before: Sequence[Provider]) -> Iterator[Remark]:
    for number, pattern in enumerate(provider.models):
        first = next((other for other in before if any(_covers(glob, pattern) for glob in other.models)), None)
        if first is not None and (first.weight is None or provider.weight is None):
            text = (
                f'lines for "{pattern}" go to {first.name}, which stands before it; to share them, give both a weight.'
            )
            yield ("providers", provider.name, "models", number), text


def _covers(wide: str, narrow: str) -> bool:
    """Whether one glob surely matches whatever another one does."""
    return wide == narrow or (not set(wide) & set("?[") and fnmatchcase(narrow, wide))
