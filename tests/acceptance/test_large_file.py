"""A file as large as OpenAI takes, and an upload five times as large: no process of the server grows with them."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec
import pytest

from tests.acceptance.cli import chat, wait_until
from tests.acceptance.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own peak of a process is Linux's")

_MB: Final = 1_000_000
_LINES: Final = 50_000
_LINE_BYTES: Final = 4_100
_PROVIDERS: Final = '[providers.simulated]\nkind = "simulated"\nlatency_s = 0\nmax_concurrency = 1000\n'
_LIMIT_S: Final = 600.0


def peaks(server: Server) -> dict[str, int]:
    """Give the highest memory in bytes of each of the server's processes so far, by what it is."""
    found: dict[str, int] = {}
    for process in server.running.children():
        role = next((name for name in ("valkey", "workers", "app") if name in " ".join(process.cmdline())), "other")
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        found[role] = max(found.get(role, 0), peak)
    return found


def growth(server: Server, before: dict[str, int]) -> dict[str, int]:
    return {role: peak - before.get(role, 0) for role, peak in peaks(server).items()}


def requests() -> Iterator[bytes]:
    """Give an input file of 205 MB, a chunk of lines at a time."""
    padding = "x" * (_LINE_BYTES - 160)
    lines = (msgspec.json.encode(chat(number, text=f"<{number}>{padding}")) + b"\n" for number in range(_LINES))
    while chunk := b"".join(islice(lines, 256)):
        yield chunk


def form(purpose: str, name: str, content: Iterator[bytes]) -> Iterator[bytes]:
    """Give the body of an upload as it streams."""
    yield f'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--edge\r\n'.encode()
    yield f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    yield from content
    yield b"\r\n--edge--\r\n"


def upload(client: httpx2.Client, purpose: str, name: str, content: Iterator[bytes]) -> dict[str, object]:
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    answer = client.post("/files", content=form(purpose, name, content), headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.timeout(_LIMIT_S)
def test_an_upload_of_a_gigabyte_takes_no_more_than_64_mb_of_the_server(tmp_path: Path) -> None:
    chunk, chunks = b"y" * _MB, 1_000
    with (
        Server(tmp_path, env={"BATCHORD_MAX_FILE_BYTES": str(2_000 * _MB)}) as server,
        httpx2.Client(base_url=server.base_url, timeout=_LIMIT_S) as client,
    ):
        upload(client, "user_data", "small.bin", iter([chunk]))  # what the first upload loads is not this one's
        before = peaks(server)
        file = upload(client, "user_data", "big.bin", (chunk for _ in range(chunks)))
        grown = growth(server, before)
        client.delete(f"/files/{file['id']}")
    assert file["bytes"] == chunks * _MB
    assert grown["app"] <= 64 * _MB, grown


def ended(client: httpx2.Client, batch_id: str) -> dict[str, Any]:
    """Wait for the end of a batch, and give it."""
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        found[:] = [client.get(f"/batches/{batch_id}").json()]
        return found[0]["status"] in {"completed", "failed", "expired", "cancelled"}

    wait_until(has_ended, "the batch ends", patience_s=_LIMIT_S)
    return found[0]


def numbers(client: httpx2.Client, file_id: str) -> Iterator[int]:
    """Give the number in each line's custom_id, as the output streams in."""
    with client.stream("GET", f"/files/{file_id}/content") as answer:
        for line in answer.iter_lines():
            yield int(msgspec.json.decode(line)["custom_id"].removeprefix("id-"))


@pytest.mark.timeout(_LIMIT_S)
def test_a_file_of_200_mb_and_50_000_lines_runs_and_comes_back_in_bounded_memory(tmp_path: Path) -> None:
    server = Server(tmp_path)
    (tmp_path / "providers.toml").write_text(_PROVIDERS, encoding="utf-8")
    with server, httpx2.Client(base_url=server.base_url, timeout=_LIMIT_S) as client:
        before = peaks(server)
        file = upload(client, "batch", "big.jsonl", requests())
        new = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = ended(client, client.post("/batches", json=new).json()["id"])
        assert list(numbers(client, batch["output_file_id"])) == list(range(_LINES))
        grown = growth(server, before)
    assert file["bytes"] == pytest.approx(205 * _MB, rel=0.01)
    assert batch["request_counts"] == {"total": _LINES, "completed": _LINES, "failed": 0}
    assert grown["app"] <= 64 * _MB, grown
    assert grown["workers"] <= 160 * _MB, grown
    assert grown["valkey"] <= 160 * _MB, grown
