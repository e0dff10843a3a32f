"""Where the keys of a TOML text stand, told of texts whose writer knows it."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchord.toml_lines import Path, lines_of, nearest_line

BARE = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
KEYS = BARE | st.text("ab.\"'#[]{}=,\\ é\t", max_size=5)
SCALARS = (
    st.integers(-9, 9)
    | st.booleans()
    | st.text("xy #[]{}=,.\"'\\\n", max_size=8)
    | st.floats(0, 9, allow_nan=False).map(lambda number: round(number, 2))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=4)
COMMENTS = st.sampled_from(["", " # [no.table]", ' # key = """', "\t"])


class Writer:
    """Writes TOML in one of its many forms, and notes where each key came to stand."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def table(self, path: Path, table: dict[str, Any]) -> None:
        self._break_lines()
        self.note(path)
        self.text += f"[{self._dotted(path)}]{self._draw(COMMENTS)}\n"
        for key, value in table.items():
            self._break_lines()
            self._pair((*path, key), key, value)
            self.text += f"{self._draw(COMMENTS)}\n"

    def note(self, path: Path) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def _break_lines(self) -> None:
        self.text += self._draw(st.sampled_from(["", "\n", "# [a] = 'x\n\n", "  "]))

    def _dotted(self, path: Path) -> str:
        return self._draw(st.sampled_from([".", " . "])).join(self._key(str(part)) for part in path)

    def _key(self, key: str) -> str:
        is_bare = key.isascii() and key.replace("-", "a").replace("_", "a").isalnum()
        return key if is_bare and self._draw(st.booleans()) else self._quoted(key)

    def _quoted(self, text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
        return '"' + escaped.replace("\n", "\\n") + '"'

    def _string(self, text: str) -> str:
        forms, skipped = [self._quoted(text)], "\n" if text.startswith("\n") else ""
        if "'" not in text:
            forms += [f"'''{skipped}{text}'''", *([] if "\n" in text else [f"'{text}'"])]
        forms.append('"""' + skipped + text.replace("\\", "\\\\").replace('"', '\\"') + '"""')
        return self._draw(st.sampled_from(forms))

    def _pair(self, path: Path, key: str, value: Any) -> None:
        self.note(path)
        self.text += f"{self._key(key)} = "
        self._value(path, value)

    def _value(self, path: Path, value: Any) -> None:
        if isinstance(value, dict):
            self._inline(path, value)
        elif isinstance(value, list):
            self._list(path, value)
        else:
            self.text += self._string(value) if isinstance(value, str) else str(value).lower()

    def _inline(self, path: Path, value: dict[str, Any]) -> None:
        self.text += "{ "
        for number, (key, inner) in enumerate(value.items()):
            self.text += ", " if number else ""
            self._pair((*path, key), key, inner)
        self.text += " }"

    def _list(self, path: Path, value: list[Any]) -> None:
        gaps = st.sampled_from(["", " ", "\n", " # ] no end, 'x\n  "])
        self.text += "["
        for number, inner in enumerate(value):
            self.text += self._draw(gaps)
            self.note((*path, number))
            self._value((*path, number), inner)
            self.text += f"{self._draw(gaps)},"
        self.text += f"{self._draw(gaps)}]"


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, dict[Path, int], dict[str, Any]]:
    tables, writer = draw(TABLES), Writer(draw)
    writer.note(("top",))
    for name, table in tables.items():
        writer.table(("top", name), table)
    writer.lines["top",] = min(line for path, line in writer.lines.items() if len(path) > 1)
    return writer.text, writer.lines, {"top": tables}


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(texts())
def test_every_key_is_found_on_its_line(written: tuple[str, dict[Path, int], dict[str, Any]]) -> None:
    text, lines, tables = written
    assert tomllib.loads(text) == tables
    assert lines_of(text) == lines


def test_dotted_keys_and_tables_before_their_parents_have_lines() -> None:
    text = '[a.b."c.d"]\nx = 1\n[a.b]\ny.z = 1979-05-27 07:32:00\n[[l]]\n[[l]]\n'
    assert lines_of(text) == {
        ("a",): 1,
        ("a", "b"): 3,
        ("a", "b", "c.d"): 1,
        ("a", "b", "c.d", "x"): 2,
        ("a", "b", "y"): 4,
        ("a", "b", "y", "z"): 4,
        ("l",): 6,
    }


def test_windows_line_ends_count_as_one() -> None:
    assert lines_of("[a]\r\nx = [\r\n1]\r\ny = 2")["a", "y"] == 4


def test_what_is_not_there_has_the_line_of_the_nearest_table_around_it() -> None:
    lines = lines_of("\n[a]\n[a.b]\nx = 1\n")
    assert nearest_line(lines, ("a", "b", "missing")) == 3
    assert nearest_line(lines, ("a", "missing", "x")) == 2
    assert nearest_line(lines, ("missing",)) is None
