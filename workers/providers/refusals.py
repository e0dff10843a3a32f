"""What is refused for a provider without being sent, and the answer that says why. Not for what a provider refuses."""

from __future__ import annotations

import msgspec

from batchord.contract import NO_USAGE
from batchord.errors import BatchordError
from workers.providers.seam import Response


class RefusedError(BatchordError):
    """A request that this provider cannot be sent; `param` is the path of the field that is to blame."""

    def __init__(self, param: str | None, message: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


def refusal(error: RefusedError) -> Response:
    """Give the answer of a request that was never sent: HTTP 400, in OpenAI's error envelope."""
    said = {"message": error.message, "type": "invalid_request_error", "param": error.param, "code": error.code}
    body = msgspec.json.encode({"error": said})
    return Response(400, body, "", NO_USAGE, None, 0.0, 0.0, is_unsent=True)
