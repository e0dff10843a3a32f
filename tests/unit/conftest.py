"""A Redis of a test's own, for the tests of the scripts."""

from __future__ import annotations

import pytest

from tests.unit.fake_state import FakeState


@pytest.fixture
def state() -> FakeState:
    return FakeState()
