"""Lines that go the short way through a real worker: what Celery tells of them, and does to them, is as ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery.worker.request import Request
from kombu import Connection, Queue

from tests.integration.celery_worker import QUEUE, Site, new_site, publish_lines, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with one worker that runs on from test to test."""
    with new_site(tmp_path_factory.mktemp("site"), "batchord") as site:
        site.worker()
        yield site


@pytest.fixture
def gid(site: Site) -> Iterator[str]:
    yield f"batch_{uuid4().hex}/test/0"
    site.redis.set("release", 1)
    site.became_idle()
    site.redis.delete("began", "ended", "cancelled", "release")


def holding(site: Site, gid: str, count: int) -> None:
    publish_lines(site, gid, range(count), "hold")
    wait_for(lambda: site.redis.llen("began") == count)


def asked(site: Site, question: str, *args: Any) -> Any:
    answers = wait_for(lambda: getattr(site.app.control.inspect(timeout=10, limit=1), question)(*args))
    (answer,) = answers.values()
    return answer


def test_a_stock_client_reads_the_message_of_a_line(site: Site, gid: str) -> None:
    publish_lines(site, gid, [7], queue="parked")
    with Connection(f"redis+socket://{site.valkey.socket_path}?virtual_host=0") as connection:
        message = Queue("parked")(connection.default_channel).get()
        assert message.payload == [["ok"], {}, {"chord": {"task": "batchord.seal"}}]
        request = Request(message, app=site.app)
        assert (request.id, request.name, request.args) == (f"{gid}/7", "batchord.execute", ["ok"])
        assert (request.chord, request._context.group) == ({"task": "batchord.seal"}, gid)
        message.ack()


def test_inspection_tells_of_lines_under_way(site: Site, gid: str) -> None:
    holding(site, gid, 3)
    active = {task["id"]: task for task in asked(site, "active")}
    assert active.keys() == {f"{gid}/0", f"{gid}/1", f"{gid}/2"}
    line = active[f"{gid}/1"]
    assert (line["name"], line["args"], line["acknowledged"]) == ("batchord.execute", ["hold"], False)
    assert line["delivery_info"]["routing_key"] == QUEUE
    assert line["time_start"] > 0
    assert asked(site, "query_task", f"{gid}/1")[f"{gid}/1"][0] == "active"
    assert asked(site, "reserved") == []


def test_lines_that_ended_are_no_longer_listed_but_counted(site: Site, gid: str) -> None:
    before = asked(site, "stats")["total"].get("batchord.execute", 0)
    publish_lines(site, gid, range(50))
    wait_for(lambda: site.redis.get(f"sealed:{gid}"))
    site.became_idle()
    assert asked(site, "active") == []
    stats = asked(site, "stats")
    assert stats["total"]["batchord.execute"] == before + 50
    assert stats["pool"]["in-flight"] == 0


def test_a_line_under_way_can_be_terminated_and_counts(site: Site, gid: str) -> None:
    holding(site, gid, 2)
    site.app.control.revoke(f"{gid}/0", terminate=True)
    wait_for(lambda: site.redis.lrange("cancelled", 0, -1) == [f"{gid}/0"])
    assert site.redis.get(f"sealed:{gid}") is None
    site.redis.set("release", 1)
    wait_for(lambda: site.redis.get(f"sealed:{gid}"))
    site.became_idle()


def test_who_listens_to_celerys_signals_hears_of_each_line(tmp_path: Path, gid: str) -> None:
    with new_site(tmp_path, "batchord") as site:
        site.worker(LISTENING="1")
        publish_lines(site, gid, range(20))
        wait_for(lambda: site.redis.get(f"sealed:{gid}"))
        site.became_idle()
        names = ("task_received", "task_prerun", "task_postrun", "task_success")
        assert site.redis.hgetall("heard") == dict.fromkeys(names, "21")
