"""Where each key of a TOML text stands, which `tomllib` does not say. Not for what is no TOML: that is its refusal."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}=,.\n]"
    r"|[^\s\[\]{}=,.\"'\#]+",
    re.DOTALL,
)
_END: Final = ""


def lines_of(text: str) -> dict[Path, int]:
    """Give the line, from 1, on which each table, key and element of a list stands; of `[[name]]`, the last one.

    Args:
        text: what `tomllib` has read without an error.
    """
    reader = _Reader(text)
    reader.read()
    return reader.lines


def nearest_line(lines: Mapping[Path, int], path: Path) -> int | None:
    """Give the line of a path, or of the nearest table around it that the text holds."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._tokens = _tokens(text)
        self._ahead, self._line = next(self._tokens)

    def read(self) -> None:
        table: Path = ()
        while self._ahead != _END:
            if self._ahead == "\n":
                self._step()
            elif self._ahead == "[":
                table = self._header()
            else:
                self._pair(table)

    def _step(self) -> str:
        token, (self._ahead, self._line) = self._ahead, next(self._tokens)
        return token

    def _header(self) -> Path:
        line = self._line
        while self._ahead == "[":
            self._step()
        path = self._key()
        while self._ahead == "]":
            self._step()
        self._note(path, line)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line
        path = (*table, *self._key())
        self._step()
        self._note(path, line)
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        parts = []
        while self._ahead not in {"=", "]"}:
            if (part := self._step()) != ".":
                parts.append(_unquoted(part))
        return tuple(parts)

    def _value(self, path: Path) -> None:
        if self._ahead == "[":
            self._step()
            self._elements(path)
        elif self._ahead == "{":
            self._step()
            self._pairs(path)
        else:
            while self._ahead not in {"\n", ",", "]", "}", _END}:
                self._step()

    def _elements(self, path: Path) -> None:
        number = 0
        while self._ahead != "]":
            if self._ahead in {"\n", ","}:
                self._step()
                continue
            self._note((*path, number), self._line)
            self._value((*path, number))
            number += 1
        self._step()

    def _pairs(self, path: Path) -> None:
        while self._ahead != "}":
            if self._ahead in {"\n", ","}:
                self._step()
            else:
                self._pair(path)
        self._step()

    def _note(self, path: Path, line: int) -> None:
        """Note where a path stands, and where the tables around it do as long as they have no header."""
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)
        self.lines[path] = line


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Give each token with its line, without the comments; at last, and for ever, the end."""
    line, at = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        if not match[0].startswith("#"):
            yield match[0], line
    while True:
        yield _END, line


def _unquoted(part: str) -> str:
    return str(tomllib.loads(f"key = {part}")["key"]) if part[0] in "\"'" else part
