"""Our transport is one more name: what other Celery apps in the same process use stays kombu's own."""

from __future__ import annotations

import pytest
from celery import Celery
from kombu import Connection
from kombu.transport import pyamqp
from kombu.transport import redis as stock

from workers import transport
from workers.transport_url import ALIAS


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://guest@127.0.0.1:5672//", pyamqp.Transport),
        ("redis://127.0.0.1:6379/0", stock.Transport),
        (f"{ALIAS}://127.0.0.1:6379/0", transport.Transport),
    ],
)
def test_a_broker_of_another_name_keeps_its_stock_transport(url: str, expected: type) -> None:
    transport.install()
    assert type(Connection(url).transport) is expected


def test_a_celery_app_of_somebody_else_is_not_changed_by_ours() -> None:
    transport.install()
    theirs = Celery("theirs", broker="amqp://guest@127.0.0.1:5672//", set_as_current=False)
    assert type(theirs.connection_for_write().transport) is pyamqp.Transport
    assert theirs.conf.worker_pool == "prefork"
