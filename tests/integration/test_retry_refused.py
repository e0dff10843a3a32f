"""Retries that cannot be: the answer says why, and the batch stays as it is."""

from __future__ import annotations

import pytest

from batchord.broker import Step
from batchord.contract import DEFAULT_TENANT, line_id
from batchord.errors import ConflictError, InvalidRequestError, NotFoundError
from batchord.service import files, retry
from tests.integration.retries import backend_of, ended, retry_all, retry_some
from tests.integration.steps import BATCH, Sites, line, mixed_lines

pytestmark = pytest.mark.timeout(120)


async def test_a_running_batch_cannot_be_retried(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        with pytest.raises(ConflictError, match=r"Cannot retry a batch with status 'validating'\."):
            await retry_all(site)
        await site.carry_out(await site.until(Step.PLAN))
        with pytest.raises(ConflictError, match=r"Cannot retry a batch with status 'in_progress'\."):
            await retry_all(site)


async def test_a_batch_that_was_refused_cannot_be_retried(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([])
        await site.drive()
        with pytest.raises(ConflictError, match="'failed'"):
            await retry_all(site)


async def test_a_batch_without_a_failure_has_nothing_to_retry(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([line("ok-1")])
        await site.drive()
        with pytest.raises(InvalidRequestError, match="no request to retry"):
            await retry_all(site)
        site.assert_tidy()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({}, "Give either 'custom_ids' or 'request_ids'"),
        ({"custom_ids": ["bad-1"], "request_ids": ["x"]}, "Give either"),
        ({"custom_ids": []}, "expected 1 to 10,000 ids, but got 0"),
        ({"request_ids": ["x"] * 10_001}, "but got 10,001"),
        ({"custom_ids": ["bad-1", "nobody"]}, "'nobody' is no failed"),
        ({"custom_ids": ["ok-0"]}, "'ok-0' is no failed"),
        ({"request_ids": ["bad-1"]}, "'bad-1' is no failed"),
        ({"request_ids": [line_id(BATCH, 1)]}, "is no failed"),
    ],
)
async def test_lines_that_cannot_be_retried_are_named(sites: Sites, named: dict[str, list[str]], words: str) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        before = await ended(site)
        with pytest.raises(InvalidRequestError, match=words):
            await retry_some(site, **named)
        await site.drive()
        assert site.result() == before
        site.assert_tidy()


async def test_a_retry_is_refused_where_the_input_is_known_to_be_gone(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        before = await ended(site)
        async with backend_of(site) as backend:
            await files.remove(backend, DEFAULT_TENANT, site.record().batch.input_file_id)
        with pytest.raises(InvalidRequestError, match="is gone"):
            await retry_all(site)
        assert site.result() == before


async def test_another_tenant_finds_no_batch_to_retry(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)
        async with backend_of(site) as backend:
            with pytest.raises(NotFoundError):
                await retry.retry(backend, "another", BATCH)
