"""What every provider takes and gives, and nothing else: no HTTP, no JSON, no configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from batchord.contract import Usage  # noqa: TC001 (msgspec reads these annotations when the program runs)
from batchord.errors import BatchordError

ErrorCode = Literal["connection_error", "request_timeout", "invalid_response", "provider_error"]


@dataclass(frozen=True, slots=True)
class Request:
    """One line to send, once.

    `body` is the JSON text to send, exactly these bytes. `attempt` counts from 1. `idempotency_key` is printable
    ASCII, and the same for every attempt of a line.
    """

    endpoint: str
    body: bytes
    custom_id: str
    attempt: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class StatedLimit:
    """What an answer's headers say of one limit: so many in a window, how many are left, and when all are back.

    What they do not say is None. `window_s` is 60 for a limit a minute.
    """

    unit: Literal["requests", "tokens"]
    window_s: float
    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer of any status: `body` is always one line that holds one JSON object.

    `latency_ms` is from the sending to the answer's last byte, `ttfb_ms` to the arrival of its headers. `is_unsent`
    says that the answer is batchord's own: the request could not be put to this provider, which knows nothing of it.
    """

    status_code: int
    body: bytes
    request_id: str
    usage: Usage
    retry_after_s: float | None
    latency_ms: float
    ttfb_ms: float
    stated: tuple[StatedLimit, ...] = ()
    is_unsent: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is one of HTTP's successes."""
        return 200 <= self.status_code < 300  # noqa: PLR2004 (RFC 9110, section 15)

    @property
    def is_throttled(self) -> bool:
        """Whether the status is 429: too many requests."""
        return self.status_code == 429  # noqa: PLR2004 (RFC 6585, section 4)

    @property
    def is_server_error(self) -> bool:
        """Whether the status says that the fault is the server's."""
        return self.status_code >= 500  # noqa: PLR2004 (RFC 9110, section 15)


class ProviderError(BatchordError):
    """There is no answer to keep: none came, it came broken, or a success turned out to hold an error.

    `is_unsent` says that no byte of the request can have reached the provider.
    """

    def __init__(
        self, code: ErrorCode, message: str, retry_after_s: float | None = None, *, is_unsent: bool = False
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.is_unsent = is_unsent


class ProviderClient(Protocol):
    """A way to one provider; made without touching the network, and used on one event loop."""

    async def send(self, request: Request) -> Response:
        """Send one request once.

        Raises:
            ProviderError: there is no answer to keep.
        """

    async def models(self) -> list[str]:
        """Give the models that the provider says it serves; none where it does not say."""

    async def aclose(self) -> None:
        """Let go of the connections; nothing is sent after this."""
