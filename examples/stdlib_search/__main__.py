"""Runs the example: serves the model, embeds the standard library's docstrings in one batch, and answers a question."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from examples.stdlib_search import model, search, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROVIDERS = """\
[providers.local]
kind = "openai"
base_url = "{base_url}"
models = ["wordllama-*"]
max_concurrency = 64
"""
EXIT_TIMEOUT_S = 10


@click.command()
@click.option("--question", default="how do I copy a directory tree", show_default=True, help="What to ask.")
@click.option("--limit", type=click.IntRange(min=1), help="Embed only the first N passages, the most general ones.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=search.FOLDER, show_default=True, help="Where the files go."
)
def main(question: str, limit: int | None, folder: Path) -> None:
    """Make a search engine for Python's standard library with one batch of embeddings."""
    passages = texts.passages()[:limit]
    names = len({passage.name for passage in passages})
    folder.mkdir(parents=True, exist_ok=True)
    write_input(folder / "input.jsonl", passages)
    click.echo(f"{len(passages):,} passages, from the docstrings of {names:,} names of the standard library")
    with embedding_server() as base_url:
        (folder / "providers.toml").write_text(PROVIDERS.format(base_url=base_url), encoding="utf-8")
        status = run_batch(folder)
    if status:
        raise click.exceptions.Exit(status)
    search.show(question, folder)
    click.echo('\nAsk again: python -m examples.stdlib_search.search "how do I …"')


def write_input(path: Path, passages: Sequence[texts.Passage]) -> None:
    """Write the batch's input file, one embedding request a passage."""
    with path.open("wb") as file:
        for passage in passages:
            body = {"model": model.NAME, "input": passage.text}
            line = {"custom_id": passage.custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}
            file.write(msgspec.json.encode(line) + b"\n")


@contextmanager
def embedding_server() -> Iterator[str]:
    """Serve the model in a process of its own while the block runs, and give the base URL."""
    command = [sys.executable, "-m", "examples.stdlib_search.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own module
        try:
            if server.stdout is None or not (base_url := server.stdout.readline().strip()):
                raise click.ClickException("The embedding server did not start; its error is above.")
            yield base_url
        finally:
            server.terminate()
            server.wait(EXIT_TIMEOUT_S)


def run_batch(folder: Path) -> int:
    """Run the batch as a user would, its progress bar on this terminal; give its exit status."""
    files = [f"{folder}/input.jsonl", "-o", f"{folder}/output.jsonl", "--providers", f"{folder}/providers.toml"]
    click.echo(f"$ batchord run {shlex.join(files)}")
    command = [sys.executable, "-m", "batchord.cli", "run", *files]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - ours too


if __name__ == "__main__":
    main()
