"""Answers a question from the batch's output file: `python -m examples.stdlib_search.search "how do I …"`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec
import numpy as np

from examples.stdlib_search.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path("example-output")
TEXT_WIDTH = 64


class Hit(NamedTuple):
    """One documented name: how near its nearest passage is to the question (cosine, at most 1), and that passage."""

    score: float
    name: str
    text: str


class _Body(msgspec.Struct):
    input: str


class _InputLine(msgspec.Struct):
    custom_id: str
    body: _Body


class _Embedding(msgspec.Struct):
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


class _Response(msgspec.Struct):
    body: _Embeddings


class _OutputLine(msgspec.Struct):
    custom_id: str
    response: _Response


def read_vectors(output: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Read a batch's output file: the custom_ids in its order, and one row of the matrix for each."""
    decoder = msgspec.json.Decoder(_OutputLine)
    with output.open("rb") as lines:
        found = [decoder.decode(line) for line in lines]
    return [line.custom_id for line in found], np.array(
        [line.response.body.data[0].embedding for line in found], np.float32
    )


def search(question: str, folder: Path, top: int = 5) -> list[Hit]:
    """Give the `top` names nearest to the question, from the `input.jsonl` and `output.jsonl` of a batch."""
    decoder = msgspec.json.Decoder(_InputLine)
    with (folder / "input.jsonl").open("rb") as lines:
        texts = {line.custom_id: line.body.input for line in map(decoder.decode, lines)}
    custom_ids, vectors = read_vectors(folder / "output.jsonl")
    scores = vectors @ Model().embed(question)
    best: dict[str, Hit] = {}
    for row in np.argsort(-scores, kind="stable"):
        name, _, text = texts[custom_ids[row]].partition(": ")
        best.setdefault(name, Hit(float(scores[row]), name, text))
        if len(best) == top:
            break
    return list(best.values())


def show(question: str, folder: Path) -> None:
    """Print the question and its nearest names."""
    click.secho(f"\n{question}", bold=True)
    hits = search(question, folder)
    width = max(len(hit.name) for hit in hits)
    for hit in hits:
        text = textwrap.shorten(hit.text, TEXT_WIDTH, placeholder=" …")
        click.echo(f"  {hit.score:.2f}  {click.style(f'{hit.name:<{width}}', fg='green')} {text}")


@click.command()
@click.argument("question")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), default=FOLDER, show_default=True)
def main(question: str, folder: Path) -> None:
    """Answer QUESTION from the batch that was run in FOLDER."""
    show(question, folder)


if __name__ == "__main__":
    main()
