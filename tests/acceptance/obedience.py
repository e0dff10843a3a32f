"""What a provider may expect of a whole run, read from what its server remembers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.acceptance.cli import chat

if TYPE_CHECKING:
    from tests.acceptance.cli import Ended, Folder
    from tests.limited_upstream import LimitedUpstream

MOST_REFUSED = 0.01
"""The share of a run's requests that a server's limiter may refuse."""

ON_THE_WIRE_S = 0.3
"""For how long after a server has asked for a pause requests may still arrive.

They were sent before the refusal was read, by a worker or by one that had yet to hear of it from another: milliseconds,
but some tenths of a second where more processes than cores want to run.
"""

TIMER_S = 0.005
"""What an event loop's timer may be early, and two clocks' rounding."""


def write_lines(folder: Folder, count: int) -> None:
    """Write an input of so many lines, `<0>`, `<1>` and so on, all of one length in tokens."""
    folder.write_input([chat(number, text=f"<{number}> {'word ' * 60}") for number in range(count)])


def assert_all_answered(folder: Folder, ended: Ended, count: int) -> None:
    """See that every line succeeded, once, in the input's order."""
    assert ended.code == 0, ended.err
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(count)]
    assert not folder.errors.exists()


def assert_answered_once(upstream: LimitedUpstream, count: int) -> None:
    """See that no line was sent again that had been answered."""
    answered = Counter(seen.body for seen in upstream.requests if seen.status == 200)
    assert (len(answered), set(answered.values())) == (count, {1})


def assert_hardly_refused(upstream: LimitedUpstream) -> None:
    """See that the limits were kept: the server's own limiter had next to nothing to refuse."""
    sent = len(upstream.requests)
    assert upstream.refused < MOST_REFUSED * sent, f"{upstream.refused} of {sent} requests were refused"


def assert_pauses_kept(upstream: LimitedUpstream) -> None:
    """See that nothing came while the server had asked to be left alone, but what was on the wire when it asked."""
    for asked in upstream.asked:
        came = [
            round(seen.started_s - asked.at, 3)
            for seen in upstream.requests
            if asked.at + ON_THE_WIRE_S < seen.started_s < asked.until - TIMER_S
        ]
        assert not came, f"in a pause of {asked.until - asked.at:.2f} s requests came after {came} s"
