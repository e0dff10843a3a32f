from __future__ import annotations

import pytest

from batchord.lifecycle import NEXT, Status, ending, to

TERMINAL = {Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED}


@pytest.mark.parametrize("status", Status)
def test_exactly_four_statuses_are_terminal(status: Status) -> None:
    assert status.is_terminal is (status in TERMINAL)


@pytest.mark.parametrize(
    ("target", "sources"),
    [
        (Status.IN_PROGRESS, {Status.VALIDATING}),
        (Status.FAILED, {Status.VALIDATING}),
        (Status.FINALIZING, {Status.IN_PROGRESS}),
        (Status.COMPLETED, {Status.FINALIZING}),
        (Status.EXPIRED, {Status.FINALIZING}),
        (Status.CANCELLING, {Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING}),
        (Status.CANCELLED, {Status.CANCELLING}),
        (Status.VALIDATING, {Status.COMPLETED, Status.EXPIRED, Status.CANCELLED}),
    ],
)
def test_a_status_is_entered_only_from_those_the_contract_names(target: Status, sources: set[Status]) -> None:
    assert set(to(target).sources) == sources
    assert to(target).stamp == f"{target}_at"


def test_every_status_leads_to_a_terminal_one() -> None:
    reached = set(TERMINAL)
    while more := {status for status, targets in NEXT.items() if targets & reached} - reached:
        reached |= more
    assert reached == set(Status)


@pytest.mark.parametrize(
    ("status", "has_expired", "end"),
    [
        (Status.FINALIZING, False, Status.COMPLETED),
        (Status.FINALIZING, True, Status.EXPIRED),
        (Status.CANCELLING, False, Status.CANCELLED),
        (Status.CANCELLING, True, Status.CANCELLED),
    ],
)
def test_a_batch_ends_as_its_lines_did(status: Status, *, has_expired: bool, end: Status) -> None:
    assert ending(status, has_expired=has_expired) is end
