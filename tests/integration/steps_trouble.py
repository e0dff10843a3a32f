"""What may befall a worker after any write of a step, and the check that it changes nothing in the results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from batchord.errors import StateUnavailableError
from tests.integration.steps import Result, Site, Sites, mixed_lines
from tests.integration.steps_worker import Died, Message, Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

Trouble = Callable[[Site, Worker, Message], Awaitable[None]]
Reach = Callable[[Site], Awaitable[Message]]


async def undisturbed(sites: Sites, lines: Sequence[dict[str, Any]]) -> Result:
    """Give what a batch ends with when nothing goes wrong; no sweep is needed then."""
    async with sites.new() as site:
        site.submit(lines)
        await site.drive()
        assert site.sweeps == 0
        site.assert_tidy()
        return site.result()


async def each_moment(
    sites: Sites,
    reach: Reach,
    trouble: Trouble,
    check: Callable[[Site], None],
    lines: Sequence[dict[str, Any]] = (),
) -> None:
    """Carry out one step of a batch with trouble right after its first write, its second, … and then all the rest.

    Each time, and once without trouble, `check` looks at what the batch ended with.
    """
    for number in count(1):
        async with sites.new(seed=number) as site:
            site.submit(lines or mixed_lines())
            message = await reach(site)
            struck = await carry_out_with(site, message, number, trouble)
            await site.drive()
            check(site)
        if not struck:
            assert number > 1
            return


async def changes_nothing(sites: Sites, reach: Reach, trouble: Trouble) -> None:
    """Check that trouble after any write of a step leaves no trace in the results, and no line is sent twice for it."""
    expected = await undisturbed(sites, mixed_lines())

    def check(site: Site) -> None:
        assert site.result() == expected
        assert sorted(site.upstream.calls) == sorted(line["custom_id"] for line in mixed_lines())
        site.assert_tidy()

    await each_moment(sites, reach, trouble, check)


async def carry_out_with(site: Site, message: Message, number: int, trouble: Trouble) -> bool:
    """Carry out a message with trouble after the worker's write of that number; whether it came to that."""
    victim = await site.worker()

    async def after_write(written: int) -> None:
        if written == number:
            await trouble(site, victim, message)

    victim.after_write = after_write
    with suppress(Died):
        await victim.carry_out(message)
    victim.after_write = None
    return victim.writes >= number


async def dies_and_is_redelivered(site: Site, victim: Worker, message: Message) -> None:
    """The worker dies; its claims and leases run out, and the broker delivers the message again."""
    site.pass_time()
    site.put_back(message)
    await victim.die()


async def dies_and_is_lost(site: Site, victim: Worker, _message: Message) -> None:
    """The worker dies, and the message with it."""
    site.pass_time()
    await victim.die()


async def redis_fails(site: Site, _victim: Worker, _message: Message) -> None:
    """Redis carried the write out, but its answer is lost; it is away for longer than any lease lives."""
    site.pass_time()
    raise StateUnavailableError("Connection lost, as asked for.")


async def is_cancelled(site: Site, _victim: Worker, _message: Message) -> None:
    """A client cancels the batch; the worker goes on."""
    site.cancel()


async def is_cancelled_and_overtaken(site: Site, _victim: Worker, _message: Message) -> None:
    """A client cancels the batch, and others end it while the worker hangs."""
    site.overtaken = True
    site.pass_time()
    site.cancel()
    await site.drive()


async def is_overtaken(site: Site, _victim: Worker, message: Message) -> None:
    """The worker hangs so long that others do its work, and all the rest, before it goes on."""
    site.overtaken = True
    site.pass_time()
    site.put_back(message)
    await site.drive()
