"""What an import brings along: processes that start often, or in the middle of things, start with little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import batchord

ROOT = Path(__file__).parents[2]


def loaded_by(module: str) -> set[str]:
    """The packages that a fresh interpreter holds after one import."""
    code = f"import {module}, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in ended.stdout.split()}


@pytest.mark.parametrize("module", ["batchord", "batchord.errors", "batchord.routing", "workers.solitary"])
def test_a_light_module_brings_no_heavy_one(module: str) -> None:
    assert not loaded_by(module) & {"celery", "genai_prices", "kombu", "obstore", "redis", "rich"}


@pytest.mark.parametrize("name", batchord.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(batchord, name).__name__ == name


def test_any_other_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'batchord' has no attribute 'sumbit'"):
        _ = batchord.sumbit  # type: ignore[attr-defined]  # a type checker says so too
