"""The search example as its reader runs it: a real model behind HTTP, `batchord run`, then a question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("wordllama", reason="it has wheels for Linux on x86_64 only")

from examples.stdlib_search import search, texts
from examples.stdlib_search.model import Model

REPOSITORY = Path(__file__).parents[2]
LIMIT = None if os.environ.get("BATCHORD_FULL") == "1" else 1_500
TIMEOUT_S = 600
QUESTION = "how do I copy a directory tree"

pytestmark = pytest.mark.timeout(TIMEOUT_S)


@pytest.fixture(scope="module")
def passages() -> list[texts.Passage]:
    return texts.passages()[:LIMIT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("example")


@pytest.fixture(scope="module")
def shown(folder: Path) -> str:
    """What the example prints; it has run to its end once this fixture is there."""
    command = [sys.executable, "-m", "examples.stdlib_search", "--folder", str(folder), "--question", QUESTION]
    limit = [] if LIMIT is None else ["--limit", str(LIMIT)]
    example = subprocess.run(
        [*command, *limit], cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT_S - 60, check=False
    )
    assert example.returncode == 0, example.stderr
    return example.stdout


@pytest.mark.usefixtures("shown")
def test_every_passage_is_in_the_output_once_and_in_input_order(folder: Path, passages: list[texts.Passage]) -> None:
    with (folder / "output.jsonl").open(encoding="utf-8") as output:
        custom_ids = [json.loads(line)["custom_id"] for line in output]
    assert custom_ids == [passage.custom_id for passage in passages]


@pytest.mark.usefixtures("shown")
def test_the_vectors_in_the_output_are_exactly_those_of_the_model(folder: Path, passages: list[texts.Passage]) -> None:
    model = Model()
    _, vectors = search.read_vectors(folder / "output.jsonl")
    assert np.array_equal(vectors, np.stack([model.embed(passage.text) for passage in passages]))


def test_the_question_finds_the_function_that_answers_it(shown: str, folder: Path) -> None:
    assert "shutil.copytree" in {hit.name for hit in search.search(QUESTION, folder)}
    assert "shutil.copytree" in shown


def test_the_passages_are_of_public_names_and_named_apart() -> None:
    passages = texts.passages()
    assert len(passages) > 5_000
    assert len({passage.custom_id for passage in passages}) == len(passages)
    parts = {part for passage in passages for part in passage.name.split(".")}
    assert not [part for part in parts if part.startswith("_")]
