"""Writes the demo's input, requests.jsonl, from Python's own documentation; the same Python gives the same file.

The file in this folder was made by Python 3.11: `python -m examples.demo.make_requests > examples/demo/requests.jsonl`.
"""

from __future__ import annotations

import ast
import json
import re
from itertools import cycle
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any, TypeVar

import click

from examples.stdlib_search.texts import definitions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.stdlib_search.texts import Definition

T = TypeVar("T")
Request = dict[str, Any]

LANGUAGES = ("German", "French", "Spanish", "Japanese", "Portuguese", "Polish", "Hindi", "Turkish")
SUBJECTS = ("text", "numbers", "files", "network", "concurrency", "types", "interface", "other")
SUBJECT_SCHEMA = {
    "type": "object",
    "properties": {"subject": {"type": "string", "enum": SUBJECTS}},
    "required": ["subject"],
    "additionalProperties": False,
}
MIN_SENTENCE_WORDS = 5
MIN_PARAGRAPH, MAX_PARAGRAPH = 350, 900  # characters: long enough to sum up, short enough for a small file


@click.command()
def main() -> None:
    """Print the thousand lines."""
    documented = [definition for definition in definitions() if _is_prose(_first_sentence(definition))]
    functions = [definition for definition in documented if isinstance(definition.node, ast.FunctionDef)]
    plain = [definition for definition in functions if definition.name.count(".") == 1]
    kinds = {
        "explain": [explain(definition) for definition in _spread(plain, 300)],
        "translate": [
            translate(definition, language)
            for definition, language in zip(_spread(documented, 250), cycle(LANGUAGES), strict=False)
        ],
        "classify": [classify(definition) for definition in _spread(functions, 200)],
        "summary": [summarize(topic, paragraph) for topic, paragraph in _spread(list(_topic_paragraphs()), 150)],
        "test": [write_test(definition) for definition in _spread(plain, 100)],
    }
    for kind, bodies in kinds.items():
        for number, body in enumerate(bodies, start=1):
            line = {"custom_id": f"{kind}-{number:04}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            click.echo(json.dumps(line, ensure_ascii=False))


def explain(function: Definition) -> Request:
    """Ask what a function is good for."""
    return _ask(
        "sim-small",
        f"In which situation would I use Python's `{function.name}`? "
        f"Its documentation begins: {_first_sentence(function)}",
        max_tokens=200,
    )


def translate(definition: Definition, language: str) -> Request:
    """Ask for a sentence in another language."""
    prompt = f"Translate into {language}; leave code as it is: {_first_sentence(definition)}"
    return _ask("sim-small", prompt, temperature=0, max_tokens=120)


def classify(function: Definition) -> Request:
    """Ask for one of a few labels, as JSON by a schema."""
    schema = {"name": "subject", "strict": True, "schema": SUBJECT_SCHEMA}
    return _ask(
        "sim-small",
        f"{function.name}: {_first_sentence(function)}",
        system="Say which subject the function belongs to.",
        temperature=0,
        response_format={"type": "json_schema", "json_schema": schema},
    )


def summarize(topic: str, paragraph: str) -> Request:
    """Ask for one sentence instead of a paragraph of the language reference."""
    prompt = f"Sum up in one sentence. From the Python reference on {topic!r}: {paragraph}"
    return _ask("sim-large", prompt, max_tokens=80)


def write_test(function: Definition) -> Request:
    """Ask for code."""
    return _ask(
        "sim-large",
        f"Write one test of `{_signature(function)}`: {_first_sentence(function)}",
        system="You write short pytest tests. Answer with code only.",
        max_tokens=300,
    )


def _ask(model: str, prompt: str, *, system: str = "", **options: Any) -> Request:
    instructions = [{"role": "system", "content": system}] if system else []
    return {"model": model, "messages": [*instructions, {"role": "user", "content": prompt}], **options}


def _spread(items: Sequence[T], count: int) -> Iterator[T]:
    """Take `count` items, evenly from the whole."""
    return (items[number * len(items) // count] for number in range(count))


def _signature(function: Definition) -> str:
    arguments = ast.unparse(function.node.args) if isinstance(function.node, ast.FunctionDef) else ""
    return f"{function.name}({arguments})"


def _first_sentence(definition: Definition) -> str:
    paragraph = " ".join(re.split(r"\n\s*\n", definition.docstring)[0].split())
    return re.split(r"(?<=[.!?]) ", paragraph)[0]


def _is_prose(sentence: str) -> bool:
    return len(sentence.split()) >= MIN_SENTENCE_WORDS and sentence[0].isupper() and sentence.endswith(".")


def _topic_paragraphs() -> Iterator[tuple[str, str]]:
    for topic, text in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", text):
            words = " ".join(paragraph.split())
            if MIN_PARAGRAPH <= len(words) <= MAX_PARAGRAPH and words[0].isupper() and words.endswith("."):
                yield topic, words


if __name__ == "__main__":
    main()
