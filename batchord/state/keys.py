"""The name of every key that the project keeps in Redis, with its owner. The braces put a batch's keys into one slot.

| key | kind | who deletes it |
|---|---|---|
| batchord:{batch} | hash: the batch's fields and counters | the batch's removal |
| batchord:{batch}:lines:<provider> | list: lines of each planned shard | the end of the batch |
| batchord:{batch}:open:<provider> | sorted set: open shards by last progress | the last seal |
| batchord:{batch}:shard:<provider>:<n> | hash: an open shard | its seal |
| batchord:{batch}:outcomes:<provider>:<n> | hash: line's index to its record | its seal |
| batchord:{batch}:claims:<provider>:<n> | hash: line's index to the worker that sends it | its seal |
| batchord:{batch}:owners:<provider>:<n> | hash: worker to when it last said that it lives | its seal |
| batchord:{batch}:strikes:<provider>:<n> | hash: line's index to how many workers died while they sent it | its seal |
| batchord:{batch}:chord:<provider>:<n> | hash: the chord's callback, ready to publish | the chord's last part |
| batchord:{batch}:chord:<provider>:<n>:waiting | set: the chord's lines that have not returned | their parts |
| batchord:{batch}:lease:<step> | string: who carries out a step that must run alone | its time to live |
| batchord:{file} | hash: a file's fields | retention, or the file's own expiry |
| batchord:{upload} | hash: an upload's fields, and `part:<id>` for each part | its time to live |
| batchord:{tenant:<t>}:batches | sorted set: a tenant's batches by creation | the batch's removal |
| batchord:{tenant:<t>}:files | sorted set: a tenant's files by creation | the file's removal |
| batchord:{tenant:<t>}:once:<digest> | string: the batch that an Idempotency-Key made | its time to live |
| batchord:{batch}:analytics | hash: what the lines cost, by model | the batch's removal |
| batchord:waiting:<provider> | sorted set: batches with shards to open, by tenant and deadline | their last shard |
| batchord:window:<provider> | hash: tenant to its open lines in all batches | the last seal |
| batchord:keys | hash: id of an API key to what is known of it | nobody: a revoked key stays refused |
| batchord:uploads | sorted set: uploads by when their parts are deleted | the sweep |
| batchord:retired | sorted set: ended batches by when they are removed | the batch's removal |
| batchord:models | hash: provider to the models that it says it serves | the provider's next answer |
| batchord:active | sorted set: batches that have not ended, by creation | the end of the batch |
| batchord:files | sorted set: files by when they expire, and ids whose bytes still come | the file, or the sweep |
| batchord:workers | sorted set: workers by the time until which they count as alive | the worker, or another one |
| batchord:shares | hash: lane and worker to the worker's part of the limit | the next worker that takes its part |
| batchord:concurrency:<provider> | hash: the limit that the fleet found, what was measured since | its time to live |
| batchord:condition:<provider> | hash: whether a provider is paused, failing or given up | its time to live |
| batchord:conditions | channel: the hash of a condition whenever it has changed | nobody: nothing is kept |
| batchord:reports:<provider> | hash: worker to what it says of a provider at the moment | its time to live |
| batchord:rates:<provider> | hash: bucket to when it is free, and limits learned from answers | its time to live |
| batchord:lease:sweep | string: who sent the last sweep | its time to live |
| batchord:lease:sweeping | string: the sweep that runs now | its time to live |
| batchord:lease:catalogue | string: who asked the providers for their models last | its time to live |
"""

from __future__ import annotations

from typing import Final, NamedTuple

ACTIVE = "batchord:active"
FILES = "batchord:files"
API_KEYS = "batchord:keys"
UPLOADS = "batchord:uploads"
RETIRED = "batchord:retired"
MODELS = "batchord:models"
WORKERS = "batchord:workers"
SHARES = "batchord:shares"
SWEEP_LEASE = "batchord:lease:sweep"
SWEEPING_LEASE = "batchord:lease:sweeping"
CATALOGUE_LEASE = "batchord:lease:catalogue"
CONDITIONS_CHANNEL = "batchord:conditions"


ROUND_SHARDS: Final = 10_000_000
"""The shards of a batch's round r are numbered from r times this."""


class Shard(NamedTuple):
    """Which shard: `number` counts among the shards of one batch for one provider, from 0 in the first round."""

    batch_id: str
    provider: str
    number: int

    @property
    def round(self) -> int:
        """The round of the batch to which the shard belongs."""
        return self.number // ROUND_SHARDS

    @property
    def gid(self) -> str:
        """The id of the shard's chord, and the stem of its lines' task ids."""
        return f"{self.batch_id}/{self.provider}/{self.number}"


def batch(batch_id: str) -> str:
    """The hash of a batch."""
    return f"batchord:{{{batch_id}}}"


def file(file_id: str) -> str:
    """The hash of a file."""
    return f"batchord:{{{file_id}}}"


def upload(upload_id: str) -> str:
    """The hash of an upload."""
    return f"batchord:{{{upload_id}}}"


def tenant_batches(tenant: str) -> str:
    """The sorted set of a tenant's batches."""
    return f"batchord:{{tenant:{tenant}}}:batches"


def tenant_files(tenant: str) -> str:
    """The sorted set of a tenant's files."""
    return f"batchord:{{tenant:{tenant}}}:files"


def condition(provider: str) -> str:
    """The hash of how a provider is."""
    return f"batchord:condition:{provider}"


def concurrency(provider: str) -> str:
    """The hash of how many requests a provider was found to take at once."""
    return f"batchord:concurrency:{provider}"


def reports(provider: str) -> str:
    """The hash of what the workers say of a provider."""
    return f"batchord:reports:{provider}"


def once(tenant: str, digest: str) -> str:
    """What a tenant's Idempotency-Key stands for."""
    return f"batchord:{{tenant:{tenant}}}:once:{digest}"


def analytics(batch_id: str) -> str:
    """The hash of what a batch's lines cost."""
    return f"batchord:{{{batch_id}}}:analytics"


def waiting(provider: str) -> str:
    """The sorted set of the batches that have shards to open for a provider."""
    return f"batchord:waiting:{provider}"


def tenant_lines(provider: str) -> str:
    """The hash of how many lines each tenant has open at a provider."""
    return f"batchord:window:{provider}"


def lines(batch_id: str, provider: str) -> str:
    """The list of how many lines each planned shard has."""
    return f"batchord:{{{batch_id}}}:lines:{provider}"


def open_shards(batch_id: str, provider: str) -> str:
    """The sorted set of the open shards' numbers, by the time of the last progress."""
    return f"batchord:{{{batch_id}}}:open:{provider}"


def shard_prefix(batch_id: str, provider: str) -> str:
    """What the key of an open shard begins with; its number follows."""
    return f"batchord:{{{batch_id}}}:shard:{provider}:"


def shard(ref: Shard) -> str:
    """The hash of an open shard: it exists exactly while the shard is open."""
    return f"{shard_prefix(ref.batch_id, ref.provider)}{ref.number}"


def outcomes(ref: Shard) -> str:
    """The hash of the shard's records."""
    return f"batchord:{{{ref.batch_id}}}:outcomes:{ref.provider}:{ref.number}"


def claims(ref: Shard) -> str:
    """The hash of who sends which line."""
    return f"batchord:{{{ref.batch_id}}}:claims:{ref.provider}:{ref.number}"


def owners(ref: Shard) -> str:
    """The hash of when the workers that claimed lines last said that they live."""
    return f"batchord:{{{ref.batch_id}}}:owners:{ref.provider}:{ref.number}"


def strikes(ref: Shard) -> str:
    """The hash of how many workers died while they sent a line."""
    return f"batchord:{{{ref.batch_id}}}:strikes:{ref.provider}:{ref.number}"


def chord(ref: Shard) -> tuple[str, str]:
    """The set of the lines that the shard's chord waits for, and the hash of its callback's message."""
    stem = f"batchord:{{{ref.batch_id}}}:chord:{ref.provider}:{ref.number}"
    return f"{stem}:waiting", stem


def rates(provider: str) -> str:
    """The hash of a provider's rates."""
    return f"batchord:rates:{provider}"


def step_lease(batch_id: str, step: str) -> str:
    """The lease of a step that must not run twice at once for a batch."""
    return f"batchord:{{{batch_id}}}:lease:{step}"
