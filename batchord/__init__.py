"""OpenAI's Batch API for any LLM endpoint, on Celery and Redis: the producer's library.

>>> from batchord import submit
>>> batch = submit([{"custom_id": "a", "message": "Hello"}], model="llama-3")
>>> batch.wait(progress=True)
>>> for result in batch.results():
...     print(result.custom_id, result.body if result.ok else result.error)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchord.batch import Batch
    from batchord.client import Client, submit
    from batchord.errors import (
        BatchordError,
        ConfigError,
        ConflictError,
        InputRefusedError,
        InvalidRequestError,
        NotFoundError,
        UnavailableError,
    )
    from batchord.lifecycle import Status
    from batchord.results import Result, ResultError
    from batchord.settings import Settings

__all__ = [
    "Batch",
    "BatchordError",
    "Client",
    "ConfigError",
    "ConflictError",
    "InputRefusedError",
    "InvalidRequestError",
    "NotFoundError",
    "Result",
    "ResultError",
    "Settings",
    "Status",
    "UnavailableError",
    "submit",
]

_HOMES = {
    "Batch": "batch",
    "Client": "client",
    "Result": "results",
    "ResultError": "results",
    "Settings": "settings",
    "Status": "lifecycle",
    "submit": "client",
}
"""The modules of these names; all others are errors."""

if not TYPE_CHECKING:  # a type checker shall see the names above, and no others

    def __getattr__(name: str) -> object:
        """Import a name when it is first asked for: most of our own processes need few of them, and start faster."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value
