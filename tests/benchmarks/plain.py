"""The loop to compare with: aiohttp, a semaphore, a file. No retries, no state, nothing kept if it dies."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, BinaryIO

import aiohttp
import click

from tests.benchmarks.program import arguments, say_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


async def send_all(base_url: str, lines: Iterable[bytes], output: BinaryIO, in_flight: int) -> None:
    """Send each line's body, at most `in_flight` at a time, and write each answer as it comes."""
    free = asyncio.Semaphore(in_flight)

    async def send(line: bytes) -> None:
        request = json.loads(line)
        async with session.post(f"{base_url}/chat/completions", json=request["body"]) as answer:
            response = {"status_code": answer.status, "body": await answer.json()}
        answered = {"custom_id": request["custom_id"], "response": response, "error": None}
        output.write(json.dumps(answered).encode() + b"\n")
        free.release()

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for line in lines:
            await free.acquire()
            tasks.create_task(send(line))


@click.command()
@arguments
def main(source: Path, target: Path, base_url: str, in_flight: int) -> None:
    """Send every line of SOURCE, write the answers to TARGET, and print how long that took as JSON."""
    started_at = time.time()
    with source.open("rb") as lines, target.open("wb") as output:
        asyncio.run(send_all(base_url, lines, output, in_flight))
    say_time(started_at)


if __name__ == "__main__":
    main()
