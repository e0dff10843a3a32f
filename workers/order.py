"""In which order a shard's lines are published: copies last, and where the provider wants it by how they begin.

What they become is written in the input's order all the same, since records and parts go by index.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.errors import BlobNotFoundError
from batchord.state import batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.state.keys import Shard
    from workers.context import Context

_ALIKE_BYTES: Final = 1_000
"""Lines whose prompts have so many bytes in common begin alike: some 250 tokens, less than any prompt cache minds."""


class _Prompt(msgspec.Struct, gc=False):
    """What providers read of a body, in the order in which they read it; a value stays the JSON that it is."""

    model: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


_read_prompt: Final = msgspec.json.Decoder(_Prompt).decode


async def publishing_order(context: Context, shard: Shard, lines: int) -> Sequence[int]:
    """Give the indices of a shard's lines as they are to be published.

    A copy that comes right after its original waits for it in a slot where another line could be sent meanwhile.
    """
    provider = context.routes.every.get(shard.provider)
    has_prefixes = provider is not None and provider.prefix_order
    if not has_prefixes and not await context.state.run(batches.has_copies(shard.batch_id)):
        return range(lines)
    try:
        planned = await context.inputs.get(shard)
        every = [planned.line(index) for index in range(lines)]
    except (BlobNotFoundError, IndexError, msgspec.MsgspecError):  # lost: `execute` says so of each line
        return range(lines)
    order = by_prefix([bytes(line.body) for line in every]) if has_prefixes else range(lines)
    return sorted(order, key=lambda index: every[index].original is not None)


def by_prefix(bodies: Sequence[bytes]) -> list[int]:
    """Give the indices of bodies so that those which begin alike are neighbours.

    The first of each group goes a group ahead: until the others follow it has been answered, and is in the cache.
    Equal ones stay in order, so that a copy comes after its original.
    """
    prompts = [_prompt(body) for body in bodies]
    indices = sorted(range(len(prompts)), key=prompts.__getitem__)
    groups = [list(group) for _, group in groupby(indices, key=lambda index: prompts[index][:_ALIKE_BYTES])]
    leaders = [group[0] for group in groups]
    order = leaders[:1]
    for following, group in enumerate(groups, start=1):
        order += [*leaders[following : following + 1], *group[1:]]
    return order


def _prompt(body: bytes) -> bytes:
    prompt = _read_prompt(body)
    return b"".join(getattr(prompt, name) for name in _Prompt.__struct_fields__)
