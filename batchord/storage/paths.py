"""The path of every object in the storage.

| path | what | who deletes it |
|---|---|---|
| files/{file} | an uploaded or produced file | retention, or the file's own expiry |
| uploads/{upload}/{part} | a part of an upload | its completion, cancelling or expiry |
| batches/{batch}/{round}/input/{provider}/{n}.jsonl | a shard's lines, planned | the end of the round |
| batches/{batch}/{round}/output/{provider}/{n}.jsonl | a sealed shard's successes | the end of the round |
| batches/{batch}/{round}/errors/{provider}/{n}.jsonl | a sealed shard's other outcomes | the end of the round |
| batches/{batch}/{round}/large/{provider}/{n}/… | records too large for Redis, until the seal | the end of the round |
| batches/{batch}/{round}/selection-… | the lines that a retry is asked for | the end of the round |
| batches/{batch}/{round}/kept/output.jsonl, errors.jsonl | outcomes that a retry keeps | the end of the round |

A round is one pass over a batch's lines: its folder is its own, so that a late tidy of an old one harms no newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from batchord.contract import OutcomePart

if TYPE_CHECKING:
    from batchord.state.keys import Shard

Part = Literal["input", OutcomePart]


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


def round_folder(batch_id: str, round_: int) -> str:
    """The folder of everything that a round of a batch needs only while it runs."""
    return f"{batch(batch_id)}{round_}/"


def shard_part(shard: Shard, part: Part) -> str:
    """One part of a shard: its planned lines, or its outcomes once it is sealed."""
    return f"{round_folder(shard.batch_id, shard.round)}{part}/{shard.provider}/{shard.number}.jsonl"


def large_record(shard: Shard, index: int, attempt: str) -> str:
    """One worker's record of a line that is too large for Redis; the first that is recorded counts."""
    folder = round_folder(shard.batch_id, shard.round)
    return f"{folder}large/{shard.provider}/{shard.number}/{index}-{attempt}"


def selection(batch_id: str, round_: int, token: str) -> str:
    """The lines that somebody asks a retry for; the retry that is accepted counts."""
    return f"{round_folder(batch_id, round_)}selection-{token}"


def kept(batch_id: str, round_: int, part: OutcomePart) -> str:
    """The outcomes that a retry keeps of the rounds before it."""
    return f"{round_folder(batch_id, round_)}kept/{part}.jsonl"
