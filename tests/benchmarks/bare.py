"""The API to compare with: a bare FastAPI route that answers one constant batch object, whatever is asked."""

from __future__ import annotations

import socket
from typing import Any

import click
import uvicorn
from fastapi import FastAPI

BATCH: dict[str, Any] = {
    "id": "batch_00000000000000000000000000000000",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": None,
    "errors": None,
    "input_file_id": "file-0000000000000000000000",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    **dict.fromkeys(("created_at", "expires_at", "in_progress_at"), 1_750_000_000),
    **dict.fromkeys(
        ("finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),
    ),
    "request_counts": {"total": 1_000, "completed": 500, "failed": 0},
    "usage": None,
    "metadata": None,
}


async def answer(path: str) -> dict[str, Any]:
    """Answer any path."""
    return {**BATCH, "id": path.rpartition("/")[2]}


@click.command()
def main() -> None:
    """Serve on a free port of 127.0.0.1; the first line printed is the base URL."""
    app = FastAPI()
    app.add_api_route("/v1/{path:path}", answer, methods=["GET", "POST"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    click.echo(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
