"""A server with Anthropic's Messages API: refuses what Anthropic's package would not send. Not one that thinks."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

from tests.typed_dicts import mismatch
from tests.upstream import Rule, Seen, Upstream, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

USAGE = {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 5}
_ERROR_TYPES = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}


class MessagesUpstream(Upstream):
    """Answers with the last text of the user, or with a call of the tool that must be called."""

    @property
    def base_url(self) -> str:
        """The base URL for a provider of the kind `anthropic`."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def admitted(self, seen: Seen) -> AsyncIterator[Rule]:
        """Let a request in, if it is one."""
        async with super().admitted(seen) as told:
            named = {"x-request-id": "", "request-id": f"req_{seen.headers.get('idempotency-key', '')}"}
            rule = msgspec.structs.replace(told, headers={**named, **told.headers})
            yield msgspec.structs.replace(rule, status=400) if _fault(seen) else rule

    def answer_to(self, seen: Seen, rule: Rule) -> bytes:
        """Give a message, or Anthropic's error envelope."""
        if rule.status >= 300:
            message = _fault(seen) or f"The upstream was told to answer {rule.status}."
            error = {"type": _ERROR_TYPES.get(rule.status, "api_error"), "message": message}
            return msgspec.json.encode({"type": "error", "error": error, "request_id": "req_in_the_body"})
        return msgspec.json.encode(_message(msgspec.json.decode(seen.body)))


def _fault(seen: Seen) -> str | None:
    if "anthropic-version" not in seen.headers:
        return "anthropic-version: header is required"
    return mismatch(msgspec.json.decode(seen.body), MessageCreateParamsNonStreaming)


def _message(asked: dict[str, Any]) -> dict[str, Any]:
    tool = asked.get("tool_choice", {}).get("name")
    block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}} if tool else _echo(asked)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }


def _echo(asked: dict[str, Any]) -> dict[str, Any]:
    content = asked["messages"][-1]["content"]
    return {"type": "text", "text": content if isinstance(content, str) else content[-1]["text"]}


@contextmanager
def run_messages_upstream() -> Iterator[MessagesUpstream]:
    """Run a server on a free port of loopback until the block ends."""
    with serving(MessagesUpstream()) as upstream:
        yield upstream
