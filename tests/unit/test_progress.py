"""What a person sees of a batch whose lines wait."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

from batchord.lifecycle import Status
from batchord.progress import _Bar, _progress, follow
from batchord.standing import Troubles
from batchord.state import conditions
from tests.unit.fake_state import FakeState, move, record_of, started

if TYPE_CHECKING:
    import pytest

    from batchord.state.batches import BatchRecord

TROUBLE = "one has not answered yet: connection refused, 12 s"


def running(state: FakeState) -> BatchRecord:
    """Give a batch in progress with lines of the provider `one`."""
    return record_of(state, started(state, {"one": [3]}))


def test_a_trouble_is_said_in_a_log_as_soon_as_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    record = running(FakeState())
    with follow(show=True) as shown:
        for trouble in ("", "", TROUBLE, TROUBLE, "", TROUBLE):
            shown.update(record, trouble)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("; ")[2] for line in said] == ["", TROUBLE, TROUBLE]
    assert all(line.startswith("in_progress: 0/3 lines") for line in said)


def test_a_trouble_is_shown_below_the_bar_while_it_lasts() -> None:
    record, out = running(FakeState()), StringIO()
    with _progress(Console(file=out, force_terminal=True, width=100)) as progress:
        bar = _Bar(progress)
        shown = []
        for trouble in (TROUBLE, ""):
            bar.update(record, trouble)
            progress.refresh()
            shown.append(TROUBLE in out.getvalue())
            out.truncate(0)
    assert shown == [True, False]


def test_what_the_providers_of_a_batch_s_lines_wait_for_is_read_while_it_runs() -> None:
    state = FakeState()
    record = running(state)
    state.run(conditions.paused("one", 0, 30, reason="status 429", is_well=True))
    state.run(conditions.paused("another", 0, 30, reason="status 429", is_well=True))
    assert re.match(r"one asks to wait \d\d s \(status 429\)", Troubles(state).of(record))
    move(state, record.batch.id, Status.FINALIZING)
    assert not Troubles(state).of(record_of(state, record.batch.id))
