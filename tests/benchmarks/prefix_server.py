"""An upstream with a prompt cache of bounded size. It knows the prefix of a request by its system message alone."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict

import click
from aiohttp import web

BYTES_PER_TOKEN = 4


class PrefixUpstream:
    """The web application: what it answered last is in its cache, and what was used longest ago goes first."""

    def __init__(self, latency_s: float, prefixes_most: int) -> None:
        self._latency_s = latency_s
        self._most = prefixes_most
        self._cached: OrderedDict[str, None] = OrderedDict()
        self.app = web.Application()
        self.app.router.add_post("/v1/chat/completions", self._complete)

    async def _complete(self, request: web.Request) -> web.Response:
        messages = (await request.json())["messages"]
        prefix, prompt = messages[0]["content"], "".join(message["content"] for message in messages)
        cached = len(prefix) // BYTES_PER_TOKEN if self._is_cached(prefix) else 0
        await asyncio.sleep(self._latency_s)
        self._keep(prefix)  # only what was computed whole can be reused
        read = len(prompt) // BYTES_PER_TOKEN
        usage = {
            "prompt_tokens": read,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens": 1,
            "total_tokens": read + 1,
        }
        choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    def _is_cached(self, prefix: str) -> bool:
        if prefix not in self._cached:
            return False
        self._cached.move_to_end(prefix)
        return True

    def _keep(self, prefix: str) -> None:
        self._cached[prefix] = None
        self._cached.move_to_end(prefix)
        if len(self._cached) > self._most:
            self._cached.popitem(last=False)


@click.command()
@click.option("--latency-s", type=float, required=True)
@click.option("--prefixes-most", type=int, required=True)
def main(latency_s: float, prefixes_most: int) -> None:
    """Serve on a free port of 127.0.0.1; the first line printed is the base URL."""
    upstream = PrefixUpstream(latency_s, prefixes_most)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    click.echo(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    web.run_app(upstream.app, sock=listener, backlog=4096, print=None, access_log=None, shutdown_timeout=1)


if __name__ == "__main__":
    main()
