"""The example's texts: the public docstrings of Python's standard library, read from source and never imported."""

from __future__ import annotations

import ast
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Documentable = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# Not the library itself: its tests, its bundled installer and editor, its demos, and what others installed.
SKIPPED_FOLDERS = {"ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests", "turtledemo"}
MIN_WORDS = 3  # A paragraph such as "Example:" says nothing to find it by.


@dataclass(frozen=True, slots=True)
class Definition:
    """One documented public module, class, function or method, under its dotted name."""

    name: str
    node: Documentable
    docstring: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One paragraph of a docstring, headed by the name that it documents; `part` counts from 1."""

    name: str
    part: int
    text: str

    @property
    def custom_id(self) -> str:
        """What names the passage's line in the batch, for example `shutil.copytree#1`."""
        return f"{self.name}#{self.part}"


def passages() -> list[Passage]:
    """Give every passage, the general ones first: the opening paragraphs of modules, of what they hold, and so on."""
    found = [passage for definition in definitions() for passage in _paragraphs(definition)]
    return sorted(found, key=lambda passage: (passage.part, passage.name.count("."), passage.name))


def definitions() -> list[Definition]:
    """Give every documented public name once: where a name is defined twice, its first definition."""
    root = Path(sysconfig.get_path("stdlib"))
    unique: dict[str, Definition] = {}
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).with_suffix("").parts
        if _is_public(module):
            name = ".".join(module).removesuffix(".__init__")
            for definition in _documented(name, ast.parse(path.read_bytes())):
                unique.setdefault(definition.name, definition)
    return list(unique.values())


def _is_public(module: tuple[str, ...]) -> bool:
    *packages, last = module
    names = [*packages, last] if last != "__init__" else packages
    return SKIPPED_FOLDERS.isdisjoint(packages) and all(name.isidentifier() and name[0] != "_" for name in names)


def _documented(name: str, node: Documentable) -> Iterator[Definition]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield Definition(name, node, docstring)
    if isinstance(node, ast.Module | ast.ClassDef):
        for inner in _public_members(node):
            yield from _documented(f"{name}.{inner.name}", inner)


def _public_members(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Give what a module or class defines, also under its `if` and `try` statements."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not child.name.startswith("_"):
                yield child
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler):
            yield from _public_members(child)


def _paragraphs(definition: Definition) -> Iterator[Passage]:
    for part, paragraph in enumerate(re.split(r"\n\s*\n", definition.docstring), start=1):
        words = paragraph.split()
        if len(words) >= MIN_WORDS:
            yield Passage(definition.name, part, f"{definition.name}: {' '.join(words)}")
