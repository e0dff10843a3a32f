"""The upstream of the benchmark: one fixed chat completion after a stated latency, and counts of what came.

It tells requests apart by their bodies: no two lines of the benchmark's input have the same.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time

import click
from aiohttp import web

BACKLOG = 4096
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Forty-two, as every benchmark knows."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
    }
).encode()


class Upstream:
    """The web application and its counts. Times are epoch seconds, to be compared with those of the other processes."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._in_flight = 0
        self._cpu_before_s = 0.0
        self.requests = 0
        self.peak_in_flight = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.app = web.Application()
        self._bodies: set[int] = set()
        self.app.router.add_post("/v1/chat/completions", self._complete)
        self.app.router.add_get("/counts", self._tell)

    async def _complete(self, request: web.Request) -> web.Response:
        if not self.requests:
            self.first_at, self._cpu_before_s = time.time(), time.process_time()
        self.requests += 1
        self._in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        self._bodies.add(hash(await request.read()))
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        self._in_flight -= 1
        self.last_at = time.time()
        return web.Response(body=COMPLETION, content_type="application/json")

    async def _tell(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts())

    def counts(self) -> dict[str, float]:
        """Give the requests and those that came before, how many wait now, and did at most; when; the CPU since."""
        return {
            "requests": self.requests,
            "repeated": self.requests - len(self._bodies),
            "in_flight": self._in_flight,
            "peak_in_flight": self.peak_in_flight,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "cpu_s": time.process_time() - self._cpu_before_s,
        }


@click.command()
@click.option("--latency-s", type=float, required=True)
def main(latency_s: float) -> None:
    """Serve on a free port of 127.0.0.1: the first line printed is the base URL, the last, at the end, the counts."""
    upstream = Upstream(latency_s)
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    click.echo(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    web.run_app(upstream.app, sock=listener, backlog=BACKLOG, print=None, access_log=None, shutdown_timeout=1)
    click.echo(json.dumps(upstream.counts()))


if __name__ == "__main__":
    main()
