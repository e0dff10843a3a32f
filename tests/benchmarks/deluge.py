"""Runs lm-deluge over an input file: its client as its manual shows it, without limits but those it is given."""

from __future__ import annotations

import asyncio
import json
import os
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from tests.benchmarks.program import arguments, say_time

if TYPE_CHECKING:
    from pathlib import Path

MODEL, KEY_ENV = "benchmark", "BENCH_NO_KEY"
UNLIMITED = 10**12
LM_DELUGE: Final[Any] = import_module("lm_deluge")  # without types, and installed for the benchmark alone


@click.command()
@arguments
@click.option("--requests-per-minute", type=int, default=UNLIMITED)
def main(source: Path, target: Path, base_url: str, in_flight: int, requests_per_minute: int) -> None:
    """Send every line of SOURCE, write the answers to TARGET, and print how long that took as JSON."""
    os.environ[KEY_ENV] = "none"
    import_module("lm_deluge.models").register_model(
        id=MODEL, name=MODEL, api_base=base_url, api_key_env_var=KEY_ENV, api_spec="openai"
    )
    started_at = time.time()
    asyncio.run(_send_all(source, target, in_flight, requests_per_minute))
    say_time(started_at)


async def _send_all(source: Path, target: Path, in_flight: int, requests_per_minute: int) -> None:
    client = LM_DELUGE.LLMClient(
        MODEL,
        max_requests_per_minute=requests_per_minute,
        max_tokens_per_minute=UNLIMITED,
        max_concurrent_requests=in_flight,
        max_new_tokens=64,
        temperature=0,
    )
    with source.open("rb") as lines:
        requests = [json.loads(line) for line in lines]
    prompts = [LM_DELUGE.Conversation.from_openai_chat(request["body"]["messages"]) for request in requests]
    responses = await client.process_prompts_async(prompts, show_progress=False)
    with target.open("w", encoding="utf-8") as output:
        for request, response in zip(requests, responses, strict=True):
            answer = {"status_code": response.status_code or 0, "body": {"content": response.completion}}
            output.write(json.dumps({"custom_id": request["custom_id"], "response": answer}) + "\n")


if __name__ == "__main__":
    main()
