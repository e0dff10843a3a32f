"""The step finalize: every line is in one of the files, once and in the input's order, and the batch ends once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import redis

from batchord.broker import Step
from batchord.contract import produced_file_id
from batchord.lifecycle import Status
from batchord.state import files, keys
from tests.integration.steps import BATCH, Site, Sites, line, mixed_lines
from tests.integration.steps_trouble import (
    Trouble,
    changes_nothing,
    dies_and_is_lost,
    dies_and_is_redelivered,
    each_moment,
    is_cancelled,
    is_cancelled_and_overtaken,
    is_overtaken,
    redis_fails,
    undisturbed,
)

if TYPE_CHECKING:
    from tests.integration.steps_worker import Message, Worker


pytestmark = pytest.mark.timeout(120)


TROUBLES = [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken]
CODES = {"batch_cancelled": Status.CANCELLED, "batch_expired": Status.EXPIRED}


async def finalizing(site: Site) -> Message:
    return await site.until(Step.FINALIZE)


def stop(site: Site, code: str) -> None:
    """Cancel the batch, or let its window be over."""
    if code == "batch_cancelled":
        site.cancel()
    else:
        site.pass_deadline()


def numbers(lines: list[str]) -> list[int]:
    return [int(custom_id.partition("-")[2]) for custom_id in lines]


async def end_is_forgotten(site: Site, victim: Worker, message: Message) -> None:
    """The batch ends by others; then the power fails, and Redis knows what it knew some time before that."""
    site.overtaken = True
    site.pass_time()
    with redis.Redis.from_url(site.settings.redis_url) as server:
        remembered = {key: server.dump(key) for key in server.scan_iter()}
        site.put_back(message)
        await site.drive()
        server.flushall()
        for key, value in remembered.items():
            server.restore(key, 0, value)
    await dies_and_is_lost(site, victim, message)


@pytest.mark.parametrize("trouble", [*TROUBLES, end_is_forgotten])
async def test_trouble_after_any_write_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    await changes_nothing(sites, finalizing, trouble)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(dies_and_is_lost, "batch_cancelled"), (is_overtaken, "batch_expired"), (end_is_forgotten, "batch_cancelled")],
)
async def test_trouble_while_a_stopped_batch_ends_changes_nothing(sites: Sites, trouble: Trouble, code: str) -> None:
    async def stopped(site: Site) -> Message:
        await site.carry_out(await site.until(Step.PLAN))
        stop(site, code)
        return await finalizing(site)

    def check(site: Site) -> None:
        assert (site.result().status, site.upstream.calls) == (CODES[code], [])
        assert site.result().output is None
        assert site.result().unsuccessful == [(line["custom_id"], code) for line in mixed_lines()]
        site.assert_tidy()

    await each_moment(sites, stopped, trouble, check)


@pytest.mark.parametrize("trouble", [is_cancelled, is_cancelled_and_overtaken])
async def test_a_cancel_after_any_write_loses_no_result(sites: Sites, trouble: Trouble) -> None:
    expected = await undisturbed(sites, mixed_lines())
    statuses = set()

    async def cancel_if_not_ended(site: Site, victim: Worker, message: Message) -> None:
        if not site.record().batch.status.is_terminal:
            await trouble(site, victim, message)

    def check(site: Site) -> None:
        statuses.add(site.result().status)
        assert replace(site.result(), status=Status.COMPLETED) == expected
        site.assert_tidy()

    await each_moment(sites, finalizing, cancel_if_not_ended, check)
    assert statuses == {Status.CANCELLED, Status.COMPLETED}


async def test_a_file_that_was_there_before_a_cancel_is_the_same_after_it(sites: Sites) -> None:
    seen: list[bytes] = []

    def error_file(site: Site) -> bytes:
        path = site.settings.data_dir / "storage" / "files" / produced_file_id(BATCH, "errors")
        return path.read_bytes() if path.exists() else b""

    async def past_the_deadline(site: Site) -> Message:
        await site.carry_out(await site.until(Step.PLAN))
        site.pass_deadline()
        return await finalizing(site)

    async def dies_and_is_cancelled(site: Site, victim: Worker, message: Message) -> None:
        if not site.record().batch.status.is_terminal:
            seen.append(error_file(site))
            site.cancel()
        await dies_and_is_redelivered(site, victim, message)

    def check(site: Site) -> None:
        assert error_file(site).startswith(seen[-1])
        assert site.result().errors == error_file(site)
        site.assert_tidy()

    await each_moment(sites, past_the_deadline, dies_and_is_cancelled, check)
    assert any(seen)


async def test_finalizes_at_once_end_the_batch_once(sites: Sites) -> None:
    expected = await undisturbed(sites, mixed_lines())
    async with sites.new(workers=4) as site:
        site.submit(mixed_lines())
        message = await finalizing(site)
        await asyncio.gather(*(worker.carry_out(message) for worker in site.workers * 2))
        await site.drive()
        assert site.result() == expected
        site.assert_tidy()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("steps", range(1, 16, 2))
async def test_a_batch_stopped_at_any_moment_has_every_line_once(sites: Sites, code: str, steps: int) -> None:
    lines = [line(f"ok-{number}", "two" if number % 3 == 1 else "one") for number in range(12)]
    async with sites.new(seed=steps) as site:
        site.submit(lines)
        for _ in range(steps):
            if message := site.take():
                await site.carry_out(message)
        stop(site, code)
        sent = list(site.upstream.calls)
        await site.drive()
        result = site.result()
        assert result.status is CODES[code]
        assert site.upstream.calls == sent
        assert numbers(result.succeeded) == sorted(numbers(sent))
        unsent = [line["custom_id"] for line in lines if line["custom_id"] not in sent]
        assert result.unsuccessful == [(custom_id, code) for custom_id in unsent]
        counts = (result.counts["total"], result.counts["completed"], result.counts["failed"])
        assert counts == (len(lines), len(sent), 0)
        site.assert_tidy()


async def test_both_files_are_in_the_inputs_order_whatever_ended_first(sites: Sites) -> None:
    kinds = ["ok", "bad", "ok", "large", "broken"]
    lines = [line(f"{kinds[number % 5]}-{number}", "two" if number % 7 < 3 else "one") for number in range(40)]
    async with sites.new(window_lines=100, seed=7) as site:
        site.submit(lines)
        await site.drive(at_once=5)
        succeeded = numbers(site.result().succeeded)
        failed = numbers([custom_id for custom_id, _ in site.result().unsuccessful])
        assert succeeded == [number for number in range(40) if number % 5 in {0, 2, 3}]
        assert failed == [number for number in range(40) if number % 5 in {1, 4}]
        assert numbers(site.upstream.calls) != sorted(numbers(site.upstream.calls))
        assert {code for _, code in site.result().unsuccessful} == {400, "invalid_response"}


@pytest.mark.parametrize(("kind", "missing"), [("ok", "errors"), ("bad", "output")])
async def test_a_file_that_would_be_empty_is_not_written(sites: Sites, kind: str, missing: str) -> None:
    async with sites.new() as site:
        site.submit([line(f"{kind}-{number}") for number in range(4)])
        await site.drive()
        assert (site.result().output is None, site.result().errors is None) == (
            missing == "output",
            missing == "errors",
        )
        assert site.result().status is Status.COMPLETED


async def test_a_finalize_delivered_after_the_end_changes_nothing(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        message = await finalizing(site)
        await site.carry_out(message)
        ended = site.result()
        for _ in range(2):
            await site.carry_out(message)
        assert site.result() == ended
        site.assert_tidy()


async def test_an_ended_batch_leaves_no_folder(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.drive()
        assert not (site.settings.data_dir / "storage" / "batches" / BATCH).exists()


@pytest.mark.parametrize("life_s", [None, 3_600])
async def test_the_produced_files_belong_to_the_batchs_owner_and_live_as_long_as_it_says(
    sites: Sites, life_s: int | None
) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        site.redis.hset(keys.batch(BATCH), "tenant", "acme")
        if life_s is not None:
            site.redis.hset(keys.batch(BATCH), "output_expires_after_s", life_s)
        await site.drive()
        batch = site.record().batch
        for file_id in (batch.output_file_id, batch.error_file_id):
            file = site.client.state.run(files.read(file_id or ""))
            assert file is not None
            assert (file.tenant, file.batch_id, file.status) == ("acme", BATCH, "processed")
            assert file.expires_at == (None if life_s is None else file.created_at + life_s)
        listed = site.redis.zrange(keys.tenant_files("acme"), 0, -1)
        assert set(listed) == {batch.output_file_id, batch.error_file_id}
        attempts = site.client.state.run(files.read(produced_file_id(BATCH, "attempts")))
        assert attempts is not None
        assert attempts.expires_at == attempts.created_at + site.settings.retention_s
