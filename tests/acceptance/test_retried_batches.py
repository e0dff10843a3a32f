"""A batch that is retried round by round over HTTP, with the stock client, real workers and a real upstream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

from tests.acceptance.cli import wait_until
from tests.acceptance.server import Server, jsonl
from tests.upstream import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.upstream import Upstream

pytestmark = pytest.mark.timeout(120)

LINES, HARD = 120, range(7, 120, 10)
CHAT: Final = "/v1/chat/completions"


def request(number: int) -> dict[str, Any]:
    said = f"{'hard' if number in HARD else 'easy'} {number} said"
    body = {"model": "m", "messages": [{"role": "user", "content": said}]}
    return {"custom_id": f"r-{number}", "method": "POST", "url": CHAT, "body": body}


@pytest.fixture
def server(tmp_path: Path, upstream: Upstream) -> Iterator[Server]:
    with Server(tmp_path, upstream_url=upstream.url, env={"BATCHORD_SHARD_LINES": "10"}) as server:
        yield server


def custom_ids(content: bytes) -> list[str]:
    return [json.loads(raw)["custom_id"] for raw in content.splitlines()]


class Follower:
    """Reads the output of a running round as it grows."""

    def __init__(self, api: httpx2.Client, batch_id: str) -> None:
        self._api = api
        self._batch_id = batch_id
        self.content = b""
        self._lines = 0

    def has_all(self) -> bool:
        """Read what has come since the last time."""
        file_id = self._api.get(f"/batches/{self._batch_id}").json()["output_file_id"]
        answer = self._api.get(f"/files/{file_id}/content", params={"skip": self._lines})
        if answer.status_code != 200:
            return False
        self.content += answer.content
        self._lines = int(answer.headers["x-last-line"])
        return answer.headers["x-incomplete"] == "false"


def follow(api: httpx2.Client, batch_id: str) -> bytes:
    follower = Follower(api, batch_id)
    wait_until(follower.has_all, "the output is whole")
    return follower.content


def test_each_retry_sends_only_what_failed_and_its_output_can_be_followed(server: Server, upstream: Upstream) -> None:
    client = server.client()
    file = client.files.create(file=("in.jsonl", jsonl(map(request, range(LINES)))), purpose="batch")
    upstream.rules = [Rule(match="hard", status=400)]
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    easy = [f"r-{number}" for number in range(LINES) if number not in HARD]
    with httpx2.Client(base_url=server.base_url, timeout=30) as api:
        assert custom_ids(follow(api, batch.id)) == easy
        for healed in (3, 8, len(HARD)):
            wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the round ends")
            upstream.rules = [Rule(match=f"hard {number} ", status=400) for number in HARD[healed:]]
            assert api.post(f"/batches/{batch.id}/retry").status_code == 200
            succeeded = sorted([*easy, *(f"r-{n}" for n in HARD[:healed])], key=lambda name: int(name[2:]))
            assert custom_ids(follow(api, batch.id)) == succeeded
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the last round ends")
    ended = client.batches.retrieve(batch.id)
    assert ended.request_counts is not None
    assert ended.request_counts.model_dump() == {"total": LINES, "completed": LINES, "failed": 0}
    assert ended.error_file_id is None
    sent = [upstream.count(f"hard {number} ") for number in HARD]
    assert sent == [2] * 3 + [3] * 5 + [4] * (len(HARD) - 8)
    assert upstream.count("easy") == len(easy)
