"""`/v1/providers`: how the providers are at the moment, as the workers report it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from batchord.state import conditions, reports, shares
from batchord.state.reports import Report
from batchord.state.shares import Ask
from tests.integration.api import open_api

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey
    from tests.integration.api import Api

PROVIDERS = """
[providers.openai]
base_url = "https://user:s3cret@api.example.com/v1"
api_key_env = "S3CRET_NAME"
models = ["gpt-*"]
requests_per_minute = 600
headers = { x-extra = "s3cret" }

[providers.local]
kind = "simulated"
"""


def serving(valkey: EmbeddedValkey, folder: Path) -> AbstractAsyncContextManager[Api]:
    path = folder / "providers.toml"
    path.write_text(PROVIDERS)
    return open_api(valkey.url, folder, providers=path)


async def test_providers_of_which_no_worker_reports_are_listed_as_they_are_configured(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with serving(valkey, tmp_path) as api:
        answer = await api.get("/v1/providers")
    assert answer.status_code == 200
    assert answer.json()["object"] == "list"
    first, second = answer.json()["data"]
    assert first == {
        "id": "openai",
        "object": "provider",
        "kind": "openai",
        "models": ["gpt-*"],
        "state": "ok",
        "message": None,
        "waits_until": None,
        "failing_since": None,
        "answered_at": None,
        "workers": 0,
        "in_flight": 0,
        "permits": 0,
        "permits_left": 0,
        "waiting": 0,
        "rate_per_minute": 0,
        "token_rate_per_minute": 0,
        "sent": 0,
        "refused": 0,
        "failed": 0,
        "limits": {"max_concurrency": None, "requests_per_minute": 600, "tokens_per_minute": None},
        "in_force": {"max_concurrency": None, "requests_per_minute": 600, "tokens_per_minute": None},
    }
    assert (second["id"], second["kind"]) == ("local", "simulated")
    assert "s3cret" not in answer.text.lower()
    assert "example.com" not in answer.text


async def test_what_the_workers_report_is_summed(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with serving(valkey, tmp_path) as api:
        for worker, sent in (("w1", 10), ("w2", 30)):
            report = Report(
                worker, in_flight=3, waiting=2, permits=5, sent=sent, rate_per_minute=60.04, refused=4, failed=1
            )
            await api.backend.state.run(reports.write({"openai": report}))
        found = (await api.get("/v1/providers/openai")).json()
    counts = ("workers", "in_flight", "waiting", "permits", "permits_left", "sent", "rate_per_minute", "refused")
    assert [found[name] for name in counts] == [2, 6, 4, 10, 4, 40, 120.1, 8]


async def test_limits_that_the_workers_learned_are_in_force_beside_those_stated(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with serving(valkey, tmp_path) as api:
        knows = Report("w1", permits=20, requests_per_minute=500, tokens_per_minute=90_000.4, token_rate_per_minute=70)
        idle = Report("w2", permits=20, requests_per_minute=600)
        for report in (knows, idle):
            await api.backend.state.run(reports.write({"openai": report}))
        found = (await api.get("/v1/providers/openai")).json()
    assert found["limits"] == {"max_concurrency": None, "requests_per_minute": 600, "tokens_per_minute": None}
    assert found["in_force"] == {"max_concurrency": 40, "requests_per_minute": 500, "tokens_per_minute": 90_000}
    assert found["token_rate_per_minute"] == 70


async def test_a_paused_provider_says_until_when_and_why(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with serving(valkey, tmp_path) as api:
        pause = conditions.paused("openai", 0, 30, reason="status 429", is_well=True)
        condition = await api.backend.state.run(pause)
        found = (await api.get("/v1/providers/openai")).json()
    assert found["state"] == "paused"
    assert re.match(r"openai asks to wait \d\d s \(status 429\)", found["message"])
    assert found["waits_until"] == pytest.approx(condition.now + 30, abs=1)


async def test_a_provider_that_has_never_answered_says_so(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with serving(valkey, tmp_path) as api:
        failed = conditions.failed(
            "openai", "w1", 0, count=1, reason="connection refused", give_up_after_s=None, is_probe=False
        )
        await api.backend.state.run(failed)
        found = (await api.get("/v1/providers/openai")).json()
    assert (found["state"], found["answered_at"]) == ("silent", None)
    assert re.fullmatch(r"openai has not answered yet: connection refused, \d s", found["message"])


async def test_a_provider_that_only_the_workers_know_is_listed_last(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with serving(valkey, tmp_path) as api:
        asks = [Ask("elsewhere", 0, 10), Ask("elsewhere/gpt-*", 0, 10)]
        await api.backend.state.run(shares.take("w1", asks, 60, 1))
        found = (await api.get("/v1/providers")).json()["data"]
    assert [each["id"] for each in found] == ["openai", "local", "elsewhere"]
    assert (found[2]["kind"], found[2]["models"]) == (None, [])


async def test_an_unknown_provider_is_refused_in_openais_words(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with serving(valkey, tmp_path) as api:
        answer = await api.get("/v1/providers/nobody")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "The provider 'nobody' does not exist",
        "type": "invalid_request_error",
        "param": "provider",
        "code": "provider_not_found",
    }


async def test_a_changed_providers_file_is_taken_over_by_the_running_api(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with serving(valkey, tmp_path) as api:
        (tmp_path / "new.toml").write_text(f'{PROVIDERS}models = ["one-more"]\n')
        os.replace(tmp_path / "new.toml", tmp_path / "providers.toml")  # noqa: PTH105 (so that nobody sees half of it)
        for _ in range(3_000):
            models = (await api.get("/v1/models")).json()["data"]
            if [(model["id"], model["owned_by"]) for model in models] == [("one-more", "local")]:
                break
        else:
            pytest.fail("The API did not take the file over.")
