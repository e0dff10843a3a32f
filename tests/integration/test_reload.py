"""A worker that runs is given one more queue, as when the providers file names a new provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.celery_worker import Site, new_site, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW = "provider.new"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with new_site(tmp_path, "batchord") as site:
        yield site


def hold(site: Site, *names: str) -> None:
    for name in names:
        site.app.send_task("hold", (name,), queue=NEW)


def began(site: Site) -> int:
    count: int = site.redis.llen("began")
    return count


def test_a_queue_given_to_a_running_worker_is_consumed_within_its_slots(site: Site) -> None:
    site.worker()
    hold(site, "a", "b", "c")
    site.send("consume_from", NEW, 2)
    wait_for(lambda: began(site) == 2)
    assert site.redis.llen(NEW) == 1
    site.redis.set("release", 1)
    wait_for(lambda: site.redis.llen("ended") == 3)
    site.became_idle()


def test_a_queue_given_twice_delivers_each_message_once(site: Site) -> None:
    site.worker()
    site.redis.set("release", 1)
    for _ in range(2):
        site.send("consume_from", NEW, 10)
    hold(site, *"abcd")
    wait_for(lambda: site.redis.llen("ended") == 4)
    site.became_idle()
    assert sorted(site.redis.lrange("began", 0, -1)) == [*"abcd"]


def test_a_queue_given_to_a_running_worker_is_consumed_by_its_next_connection_too(site: Site) -> None:
    site.worker()
    site.send("consume_from", NEW, 10)
    hold(site, "before")
    wait_for(lambda: began(site) == 1)
    site.redis.client_kill_filter(_type="normal", skipme=True)
    hold(site, "after")
    wait_for(lambda: began(site) == 2)
    site.redis.set("release", 1)
    wait_for(lambda: site.redis.llen("ended") == 2)
