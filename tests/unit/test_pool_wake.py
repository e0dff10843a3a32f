from __future__ import annotations

import select
import signal
from typing import TYPE_CHECKING

import pytest

from workers.pool_wake import Wake

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def wake() -> Iterator[Wake]:
    handler, wakeup_fd = signal.signal(signal.SIGUSR1, lambda *_: None), signal.set_wakeup_fd(-1)
    yield Wake()
    signal.set_wakeup_fd(wakeup_fd)
    signal.signal(signal.SIGUSR1, handler)


def is_readable(wake: Wake) -> bool:
    return bool(select.select([wake.fd], [], [], 0)[0])


def test_it_is_readable_from_the_first_set_until_it_is_cleared(wake: Wake) -> None:
    assert not is_readable(wake)
    wake.set()
    wake.set()
    assert is_readable(wake)
    wake.clear()
    assert not is_readable(wake)
    wake.set()
    assert is_readable(wake)


def test_a_signal_ends_a_poll_that_would_go_on_once_its_handler_has_returned(wake: Wake) -> None:
    wake.set_at_signals()
    signal.raise_signal(signal.SIGUSR1)
    assert is_readable(wake)
    wake.clear()
    assert not is_readable(wake)
