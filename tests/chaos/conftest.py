"""The seeds of a run, and a stage for each scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.schedule import LONG, Schedule, seeds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every wait in these tests is bounded by minutes; the sum of them is bounded here."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1_200 if LONG else 400))


@pytest.fixture(params=seeds())
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return Schedule(request.node.originalname, request.param)
