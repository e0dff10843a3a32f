"""A table of results, for the terminal and for the docs, which keep each table in a block of its own name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import table as rich_table
from rich.box import SIMPLE
from rich.console import Group

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows; a line feed in a cell is for the terminal. `note` says what was measured, and how."""

    name: str
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def rich(self) -> Group:
        """Give it for the terminal."""
        shown = rich_table.Table(
            title=self.title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False
        )
        for number, heading in enumerate(self.headings):
            shown.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            shown.add_row(*row)
        return Group(shown, self._sentence)

    def markdown(self) -> str:
        """Give it for the docs."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        shown = "".join(f"| {' | '.join(_flat(cell) for cell in line)} |\n" for line in lines)
        return f"{shown}\n{self._sentence}\n" if self.note else shown

    @property
    def _sentence(self) -> str:
        return f"{self.note[0].upper()}{self.note[1:]}." if self.note else ""


def _flat(cell: str) -> str:
    return " ".join(cell.split())


def write_blocks(path: Path, tables: Iterable[Table], source: str) -> None:
    """Replace the tables of a page that are among these: what is between `<!-- bench NAME -->` and `<!-- end -->`."""
    by_name = {table.name: table for table in tables}

    def replace(block: re.Match[str]) -> str:
        table = by_name.get(block["name"])
        return f"{block['begin']}{table.markdown()}\n{source}\n{block['end']}" if table else block[0]

    page = path.read_text(encoding="utf-8")
    path.write_text(
        re.sub(r"(?P<begin><!-- bench (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)", replace, page, flags=re.DOTALL),
        encoding="utf-8",
    )
