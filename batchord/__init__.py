"""OpenAI's Batch API for any LLM endpoint, on Celery and Redis: the producer's library.

>>> from batchord import submit
>>> batch = submit([{"custom_id": "a", "message": "Hello"}], model="llama-3")
>>> batch.wait(progress=True)
>>> for result in batch.results():
...     print(result.custom_id, result.body if result.ok else result.error)
"""

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
