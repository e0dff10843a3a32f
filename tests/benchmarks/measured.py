"""What every part of the benchmark gives, and where it works."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.table import Table


@dataclass(frozen=True, slots=True)
class Measured:
    """What a part gives: results to be kept as JSON, and tables to be read."""

    results: dict[str, Any]
    tables: Sequence[Table]


@contextmanager
def empty_folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="batchord-bench-") as name:
        yield Path(name)
