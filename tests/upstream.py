"""An OpenAI-compatible server for tests: it misbehaves on request and remembers what it was asked. Not for benchmarks.

In a test, in a thread of its own, so that a blocked test cannot block it:

    with run_upstream() as upstream:
        upstream.rules = [Rule(match="line-7", status=503, times=2)]  # then send requests to upstream.url
        assert upstream.count("line-7") == 3

In a process of its own, `python -m tests.upstream --port 0 --latency 0.2` prints its base URL as its first line, and
is asked over HTTP: `GET /_requests?match=TEXT`, `POST /_rules` with a JSON list of rules, `POST /_reset`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from hashlib import shake_128
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from tests.faults import error_body, json_answer, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

Fault = Literal[
    "hang",  # never answers
    "reset",  # resets the connection before a byte of the answer
    "not_http",  # answers with bytes that are no HTTP
    "html",  # answers with a page of HTML
    "truncated",  # a whole HTTP answer, whose JSON stops in the middle
    "cut",  # announces a length, sends half of it, and closes
    "cut_chunked",  # sends half in chunks, and closes without the last one
    "error_in_success",  # status 200 around {"error": ...}
    "pretty",  # JSON on many lines
    "gzip",  # compressed
    "huge",  # `size_bytes` of JSON
    "slow",  # the body one byte at a time, over `latency_s`
    "kill",  # kills the process that asks, at once
    "crash",  # has the process that asks die of a segmentation fault
]


U = TypeVar("U", bound="Upstream")


class Rule(msgspec.Struct, kw_only=True):
    """What happens to the requests whose path or body contains `match`; the first rule that applies is the one."""

    match: str = ""
    times: int | None = None  # of each body only the first so many requests; None: all of them
    status: int = 200  # from 300 on, the answer is an error envelope
    headers: dict[str, str] = {}
    latency_s: float = 0.0  # on top of the server's own
    fault: Fault | None = None
    size_bytes: int = 0
    usage: tuple[int, int] | None = None  # the tokens of input and output that it reports; None: a word is a token


class Seen(msgspec.Struct):
    """A request as it came in (text that is no UTF-8 with marks); `ended_s` is None while it is being answered."""

    path: str
    body: str
    headers: dict[str, str]  # by lower-case names
    started_s: float  # monotonic
    ended_s: float | None = None
    status: int = 0  # what it was answered; 0 before that


class Upstream:
    """The server's rules and memory; set and read from other threads, so each is only replaced whole or appended to."""

    def __init__(self, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.port = 0
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget every rule and every request so far."""
        self.rules: list[Rule] = []
        self.requests: list[Seen] = []  # those of lines
        self.models: list[str] = []  # what it says that it serves
        self.max_in_flight = self.in_flight
        self._times_asked = Counter[tuple[str, str]]()

    @property
    def url(self) -> str:
        """The base URL for a provider's configuration."""
        return f"http://127.0.0.1:{self.port}/v1"

    def seen(self, match: str = "") -> list[Seen]:
        return [seen for seen in self.requests if match in seen.body or match in seen.path]

    def count(self, match: str = "") -> int:
        return len(self.seen(match))

    async def serve(self, port: int, ready: Callable[[], None], stopped: asyncio.Event) -> None:
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_get("/_requests", self._show_requests)
        app.router.add_post("/_rules", self._set_rules)
        app.router.add_post("/_reset", self._forget)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        self.port = runner.addresses[0][1]
        ready()
        await stopped.wait()
        await runner.cleanup()

    async def _show_requests(self, request: web.Request) -> web.Response:
        seen = self.seen(request.query.get("match", ""))
        shown = {"count": len(seen), "max_in_flight": self.max_in_flight, "requests": seen}
        return json_answer(msgspec.json.encode(shown))

    async def _set_rules(self, request: web.Request) -> web.Response:
        self.rules = msgspec.json.decode(await request.read(), type=list[Rule])
        return json_answer(b"{}")

    async def _forget(self, _request: web.Request) -> web.Response:
        self.reset()
        return json_answer(b"{}")

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        rule = self.rule_for(await _seen(request))
        listed = [{"id": model, "object": "model", "created": 1, "owned_by": "upstream"} for model in self.models]
        body = msgspec.json.encode({"object": "list", "data": listed})
        return await send(request, body, rule)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        seen = await _seen(request)
        self.requests.append(seen)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            async with self.admitted(seen) as rule:
                await asyncio.sleep(self.latency_s + rule.latency_s)
                seen.status = rule.status
                return await send(request, self.answer_to(seen, rule), rule)
        finally:
            self.in_flight -= 1
            seen.ended_s = time.monotonic()

    @asynccontextmanager
    async def admitted(self, seen: Seen) -> AsyncIterator[Rule]:
        """Hold what a request needs while it is answered; gives what happens to it. For servers with limits."""
        yield self.rule_for(seen)

    def answer_to(self, seen: Seen, rule: Rule) -> bytes:
        """Give the answer's body. For servers that speak another API."""
        return _answer_to(seen, rule)

    def rule_for(self, seen: Seen) -> Rule:
        asked = (seen.path, seen.body)
        self._times_asked[asked] += 1
        for rule in self.rules:
            is_meant = rule.match in seen.body or rule.match in seen.path
            if is_meant and (rule.times is None or self._times_asked[asked] <= rule.times):
                return rule
        return Rule()


async def _seen(request: web.Request) -> Seen:
    body = (await request.read()).decode(errors="replace")
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Seen(request.path, body, headers, time.monotonic())


def _answer_to(seen: Seen, rule: Rule) -> bytes:
    if rule.status >= 300:
        return error_body(f"The upstream was told to answer {rule.status}.")
    asked = msgspec.json.decode(seen.body or "{}")
    if seen.path.endswith("/chat/completions"):
        return msgspec.json.encode(_chat_completion(asked, rule.usage))
    if seen.path.endswith("/embeddings"):
        return msgspec.json.encode(_embeddings(asked))
    return msgspec.json.encode({"id": "echo-1", "object": "echo", "path": seen.path, "body": asked})


def _chat_completion(asked: dict[str, Any], usage: tuple[int, int] | None) -> dict[str, Any]:
    said = next((m["content"] for m in reversed(asked.get("messages", [])) if m.get("role") == "user"), "")
    words = len(str(said).split())
    prompt, completion = usage or (words, words)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def _embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    given = asked.get("input", "")
    texts = list(map(str, given)) if isinstance(given, list) else [str(given)]
    vectors = [[byte / 256 for byte in shake_128(text.encode()).digest(4)] for text in texts]
    items = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "model": asked.get("model"), "data": items, "usage": usage}


@contextmanager
def run_upstream(latency_s: float = 0.0) -> Iterator[Upstream]:
    """Run a server on a free port of loopback until the block ends; for sync and async tests alike."""
    with serving(Upstream(latency_s)) as upstream:
        yield upstream


@contextmanager
def serving(upstream: U, port: int = 0) -> Iterator[U]:
    """Run a server of one's own as `run_upstream` does."""
    stopped, started = asyncio.Event(), Future[asyncio.AbstractEventLoop]()
    serving = upstream.serve(port, lambda: started.set_result(asyncio.get_running_loop()), stopped)
    thread = threading.Thread(target=asyncio.run, args=(serving,), name="upstream", daemon=True)
    thread.start()
    loop = started.result(timeout=10)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(timeout=10)


async def serve_until_signalled(upstream: Upstream, port: int) -> None:
    """Run a server in a process of its own; it prints its base URL, and nothing else."""
    stopped = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopped.set)
    await upstream.serve(port, lambda: print(upstream.url, flush=True), stopped)  # noqa: T201  (its one line of output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    asyncio.run(serve_until_signalled(Upstream(options.latency), options.port))
