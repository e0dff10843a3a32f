"""What pydantic finds wrong in a configuration, in words for whoever wrote it. Never the value: it may be a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_WORDS: Final = {
    "dict_type": "Input should be a table",
    "extra_forbidden": "There is no such setting",
    "model_type": "Input should be a table such as { input = 1.0, output = 2.0 }",
    "tuple_type": 'Input should be a list such as ["a", "b"]',
}
"""What replaces pydantic's words where they are Python's, by the kind of the problem."""


def explain(error: ValidationError) -> list[tuple[tuple[str | int, ...], str]]:
    """Give the path and the words of each problem."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return [(problem["loc"], _words(problem)) for problem in problems]


def _words(problem: ErrorDetails) -> str:
    return _WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
