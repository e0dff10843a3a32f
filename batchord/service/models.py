"""Which models the providers serve: those that the configuration names, and those that the providers list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from batchord.errors import NotFoundError
from batchord.state import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batchord.routing import Provider
    from batchord.service.backend import Backend

_GLOB_SIGNS: Final = frozenset("*?[")


class ServedModel(NamedTuple):
    """A model by the name that a line may give it, and the provider that a line of that name goes to."""

    model: str
    provider: str


async def listing(backend: Backend) -> list[ServedModel]:
    """Give the models, by provider in the configuration's order; each under the first provider that serves it.

    What a provider lists is as of some minutes ago, and needs a worker that runs; what a glob admits beyond it is not
    known, so a model that is not here may be served nevertheless.
    """
    catalogues = await backend.state.run(catalogue.read())
    named = (name for provider in backend.routes.providers.values() for name in _names(provider, catalogues))
    routes = ((name, backend.routes.route(name)) for name in dict.fromkeys(named))
    return [ServedModel(name, route.provider) for name, route in routes if route is not None]


async def find(backend: Backend, model: str) -> ServedModel:
    """Give one model of the listing.

    Raises:
        NotFoundError: it is not listed.
    """
    for served in await listing(backend):
        if served.model == model:
            return served
    raise NotFoundError(f"The model '{model:.200}' does not exist", "model", "model_not_found")


def _names(provider: Provider, catalogues: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from (pattern for pattern in provider.models if not _GLOB_SIGNS & set(pattern))
    yield from (name for name in catalogues.get(provider.name, ()) if provider.serves(name))
