"""The path of every object in the storage.

| path | what | who deletes it |
|---|---|---|
| files/{file} | an uploaded or produced file | retention, or the file's own expiry |
| uploads/{upload}/{part} | a part of an upload | its completion, cancelling or expiry |
| batches/{batch}/input/{provider}/{n}.jsonl | a shard's lines, planned | the end of the batch |
| batches/{batch}/output/{provider}/{n}.jsonl | a sealed shard's successes | the end of the batch |
| batches/{batch}/errors/{provider}/{n}.jsonl | a sealed shard's other outcomes | the end of the batch |
| batches/{batch}/large/{provider}/{n}/… | records too large for Redis, until the seal | the end of the batch |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchord.state.keys import Shard

Part = Literal["input", "output", "errors"]


def file(file_id: str) -> str:
    """The bytes of a file."""
    return f"files/{file_id}"


def upload(upload_id: str) -> str:
    """The folder of an upload's parts."""
    return f"uploads/{upload_id}/"


def upload_part(upload_id: str, part_id: str) -> str:
    """The bytes of a part of an upload."""
    return f"uploads/{upload_id}/{part_id}"


def batch(batch_id: str) -> str:
    """The folder of everything that a batch needs only while it runs."""
    return f"batches/{batch_id}/"


def shard_part(shard: Shard, part: Part) -> str:
    """One part of a shard: its planned lines, or its outcomes once it is sealed."""
    return f"batches/{shard.batch_id}/{part}/{shard.provider}/{shard.number}.jsonl"


def large_record(shard: Shard, index: int, attempt: str) -> str:
    """One worker's record of a line that is too large for Redis; the first that is recorded counts."""
    return f"batches/{shard.batch_id}/large/{shard.provider}/{shard.number}/{index}-{attempt}"
