"""A provider without a network: plausible, repeatable answers that say what they are. Not a fault injector."""

from __future__ import annotations

import asyncio
import math
import time
from hashlib import blake2b, shake_128
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from workers.providers.answers import error_body, read_answer
from workers.providers.http1 import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchord.routing import Provider
    from workers.providers.seam import Request, Response

_EXCERPT_CHARS: Final = 200
_CHARS_PER_TOKEN: Final = 4
_VECTOR_LENGTH: Final = 8
_FIRST_BYTE_SHARE: Final = 0.25
"""A simulated answer's headers are said to have come after this part of its latency."""


class _Message(msgspec.Struct):
    content: Any = None


class _Asked(msgspec.Struct):
    """What the answers depend on; the rest of a body is not looked at."""

    model: str = "simulated"
    messages: list[_Message] = []
    input: Any = None
    prompt: Any = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4096)] = _VECTOR_LENGTH


_DECODER: Final = msgspec.json.Decoder(_Asked)


class SimulatedProvider:
    """Answers in process after `latency_s`, give or take a quarter.

    But for its date, the answer to a line is always the same.
    `failure_rate` is the share of lines that fail, picked by a hash of their `custom_id`: one half of them with a 500
    to the first attempt only, the other half with a 500 to every attempt.
    """

    def __init__(self, config: Provider, _environ: Mapping[str, str]) -> None:
        self._config = config

    async def send(self, request: Request) -> Response:
        """Wait and answer; see `ProviderClient`."""
        started = time.perf_counter()
        await asyncio.sleep(self._config.latency_s * (0.75 + 0.5 * _share("latency", request.custom_id)))
        status_code, body = self._answer(request)
        request_id = f"req_simulated_{_digest(request.custom_id)}"
        latency_ms = (time.perf_counter() - started) * 1000
        headers, ttfb_ms = {"x-request-id": request_id}, latency_ms * _FIRST_BYTE_SHARE
        return read_answer(Answer(status_code, headers, body, latency_ms, ttfb_ms), time.time())

    def _answer(self, request: Request) -> tuple[int, bytes]:
        if self._fails(request):
            return 500, error_body(500, "[simulated] This line is one of those that failure_rate picks.")
        try:
            asked = _DECODER.decode(request.body)
        except msgspec.DecodeError as error:
            return 400, error_body(400, f"[simulated] {error}")
        answer = _ANSWERS.get(request.endpoint, _anything)(asked, _digest(request.custom_id))
        return 200, msgspec.json.encode({"model": asked.model, "simulated": True, **answer})

    def _fails(self, request: Request) -> bool:
        share = _share("failure", request.custom_id)
        rate = self._config.failure_rate
        return share < rate / 2 or (share < rate and request.attempt == 1)

    async def models(self) -> list[str]:
        """It has no list: it takes any name."""
        return []

    async def aclose(self) -> None:
        """Nothing is open."""


def _chat_completion(asked: _Asked, line: str) -> dict[str, Any]:
    said = _text(asked.messages[-1].content) if asked.messages else ""
    message = {"role": "assistant", "content": _reply(said), "refusal": None}
    return {
        "id": f"chatcmpl-{line}",
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _prompt_usage(said, _reply(said)),
    }


def _completion(asked: _Asked, line: str) -> dict[str, Any]:
    said = _text(asked.prompt)
    return {
        "id": f"cmpl-{line}",
        "object": "text_completion",
        "created": int(time.time()),
        "choices": [{"index": 0, "text": _reply(said), "logprobs": None, "finish_reason": "stop"}],
        "usage": _prompt_usage(said, _reply(said)),
    }


def _response(asked: _Asked, line: str) -> dict[str, Any]:
    said = _text(asked.input[-1] if isinstance(asked.input, list) and asked.input else asked.input)
    content = [{"type": "output_text", "text": _reply(said), "annotations": []}]
    message = {"id": f"msg_{line}", "type": "message", "status": "completed", "role": "assistant", "content": content}
    return {
        "id": f"resp_{line}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "output": [message],
        "usage": _input_usage(said, _reply(said)),
    }


def _native_message(asked: _Asked, line: str) -> dict[str, Any]:
    said = _text(asked.messages[-1].content) if asked.messages else ""
    return {
        "id": f"msg_{line}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": _reply(said)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _input_usage(said, _reply(said)),
    }


def _embeddings(asked: _Asked, _line: str) -> dict[str, Any]:
    texts = _inputs(asked.input)
    vectors = [_vector(text, asked.dimensions) for text in texts]
    tokens = sum(map(_tokens, texts))
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _moderations(asked: _Asked, line: str) -> dict[str, Any]:
    result = {"flagged": False, "categories": {}, "category_scores": {}}
    return {"id": f"modr-{line}", "results": [result] * len(_inputs(asked.input))}


def _anything(asked: _Asked, line: str) -> dict[str, Any]:
    said = _text(asked.input or asked.prompt)
    return {"id": f"sim-{line}", "object": "simulated", "text": _reply(said), "usage": _input_usage(said, _reply(said))}


_ANSWERS: Final[dict[str, Callable[[_Asked, str], dict[str, Any]]]] = {
    "/v1/chat/completions": _chat_completion,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/embeddings": _embeddings,
    "/v1/moderations": _moderations,
    "/v1/messages": _native_message,
}


def _inputs(given: Any) -> list[str]:
    """Split into texts; a list of token numbers is one text."""
    if isinstance(given, list) and not all(isinstance(item, int) for item in given):
        return [_text(item) for item in given]
    return [_text(given)]


def _text(content: Any) -> str:
    """Give the words of a message's content, in any of the forms that the endpoints take."""
    if isinstance(content, list):
        return " ".join(map(_text, content))
    if isinstance(content, dict):
        return _text(content.get("text") or content.get("content"))
    return "" if content is None else str(content)


def _reply(said: str) -> str:
    return f"[simulated] You said: {said[:_EXCERPT_CHARS]}"


def _tokens(text: str) -> int:
    return math.ceil(len(text) / _CHARS_PER_TOKEN)


def _prompt_usage(said: str, reply: str) -> dict[str, int]:
    usage = _input_usage(said, reply)
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }


def _input_usage(said: str, reply: str) -> dict[str, int]:
    asked, answered = _tokens(said), _tokens(reply)
    return {"input_tokens": asked, "output_tokens": answered, "total_tokens": asked + answered}


def _vector(text: str, length: int) -> list[float]:
    """Give a vector of length 1 that depends on the text alone."""
    numbers = [byte - 127.5 for byte in shake_128(text.encode()).digest(length)]
    norm = math.hypot(*numbers)
    return [round(number / norm, 6) for number in numbers]


def _share(purpose: str, custom_id: str) -> float:
    """Map a line to [0, 1), evenly, and for each purpose anew."""
    return int(_digest(f"{purpose} {custom_id}"), 16) / 2**64


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
