"""Serves the model as an OpenAI-compatible `/v1/embeddings`, in a process of its own. Only as much as a batch needs."""

from __future__ import annotations

import socket

import click
from aiohttp import web

from examples.stdlib_search import model


def create_app(embedder: model.Model) -> web.Application:
    """Make the web application. A text takes the model 0.1 ms, so it is embedded right on the event loop."""

    async def embeddings(request: web.Request) -> web.Response:
        asked = (await request.json())["input"]
        texts = [asked] if isinstance(asked, str) else asked
        tokens = sum(map(embedder.tokens, texts))
        vectors = [
            # The decimal form of a float32 as a double is exact: the client gets the very same numbers back.
            {"object": "embedding", "index": index, "embedding": embedder.embed(text).tolist()}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "model": model.NAME, "data": vectors, "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    return app


@click.command()
def main() -> None:
    """Serve on a free port of 127.0.0.1, and print the base URL once requests can come."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    app = create_app(model.Model())
    click.echo(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    web.run_app(app, sock=listener, backlog=1024, print=None, access_log=None, shutdown_timeout=1)


if __name__ == "__main__":
    main()
