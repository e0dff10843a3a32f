"""Who is let in: with no key, a wrong one, a revoked one, one of the environment or of Redis; and how keys are made."""

from __future__ import annotations

import base64
import logging
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from batchord.cli import commands
from batchord.service import keys
from batchord.state.connection import BlockingState
from tests.integration.api import open_api

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx2
    from click.testing import Result

    from batchord.embedded import EmbeddedValkey
    from tests.integration.api import Api

PATH = "/v1/models"
ENV_KEYS = "team-a:sk-first-of-the-environment,sk-second-of-the-environment"
PUBLIC = "0.0.0.0"  # noqa: S104 (nothing is bound)
LONG_KEY = "sk-0123456789abcdefghijklmnopqrstuvwxyz"


def made(valkey: EmbeddedValkey, tenant: str, *, revoked: bool = False) -> str:
    """Give a key of Redis."""
    with closing(BlockingState(valkey.url)) as state:
        key, text = keys.create(state, tenant)
        if revoked:
            keys.revoke(state, key.id)
    return text


async def ask(api: Api, key: str | None = None, path: str = PATH) -> httpx2.Response:
    return await api.get(path, headers={} if key is None else {"Authorization": f"Bearer {key}"})


def assert_refused(answer: httpx2.Response, message: str, code: str | None) -> None:
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="batchord"'
    assert answer.json() == {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    }


NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY). You can get one from whoever runs this server."
)


async def test_without_any_key_this_machine_is_the_default_tenant(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        for key in (None, "unused", "sk-batchord-" + "0" * 16 + "-" + "0" * 48):
            assert (await ask(api, key)).status_code == 200
            assert await keys.authenticate(api.backend, f"Bearer {key}") == "default"


async def test_without_any_key_others_than_this_machine_are_refused(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, host=PUBLIC) as api:
        assert_refused(await ask(api), NO_KEY, None)


async def test_keys_of_the_environment_speak_for_their_tenants(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=ENV_KEYS) as api:
        first, second = (entry.rpartition(":")[2] for entry in ENV_KEYS.split(","))
        assert await keys.authenticate(api.backend, f"Bearer {first}") == "team-a"
        assert await keys.authenticate(api.backend, f"bearer  {second} ") == "default"
        assert (await ask(api, first)).status_code == 200


async def test_keys_of_redis_speak_for_their_tenants_beside_those_of_the_environment(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    key = made(valkey, "team-b")
    async with open_api(valkey.url, tmp_path, api_keys=ENV_KEYS) as api:
        assert await keys.authenticate(api.backend, f"Bearer {key}") == "team-b"
    async with open_api(valkey.url, tmp_path) as api:
        assert await keys.authenticate(api.backend, f"Bearer {key}") == "team-b"


@pytest.mark.parametrize("env_keys", ["", ENV_KEYS])
@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic " + base64.b64encode(b":sk-second-of-the-environment").decode(), "Bearer\t"],
)
async def test_a_request_without_a_key_is_told_how_to_send_one(
    valkey: EmbeddedValkey, tmp_path: Path, env_keys: str, authorization: str
) -> None:
    made(valkey, "team-b")
    async with open_api(valkey.url, tmp_path, api_keys=env_keys) as api:
        assert_refused(await api.get(PATH, headers={"Authorization": authorization}), NO_KEY, None)


@pytest.mark.parametrize("env_keys", ["", ENV_KEYS])
async def test_a_wrong_key_is_refused_and_masked(valkey: EmbeddedValkey, tmp_path: Path, env_keys: str) -> None:
    made(valkey, "team-b")
    message = "Incorrect API key provided: sk-01***yz. You can get one from whoever runs this server."
    async with open_api(valkey.url, tmp_path, api_keys=env_keys) as api:
        assert_refused(await ask(api, LONG_KEY), message, "invalid_api_key")


async def test_a_key_of_redis_with_another_secret_is_refused(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    key = made(valkey, "team-b")
    async with open_api(valkey.url, tmp_path) as api:
        for wrong in (key[:-1] + ("1" if key[-1] == "0" else "0"), key[:-1], key + "0", key.upper()):
            assert (await ask(api, wrong)).status_code == 401


async def test_a_revoked_key_is_refused_at_once_and_does_not_open_the_server(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    key = made(valkey, "team-b")
    async with open_api(valkey.url, tmp_path) as api:
        assert (await ask(api, key)).status_code == 200
        with closing(BlockingState(valkey.url)) as state:
            keys.revoke(state, key.split("-")[2])
        answer = await ask(api, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert (await ask(api)).status_code == 401


async def test_the_first_key_closes_an_open_server(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        assert (await ask(api)).status_code == 200
        made(valkey, "team-b")
        assert (await ask(api)).status_code == 401


async def test_nobody_is_let_in_while_redis_cannot_say_who_may(tmp_path: Path) -> None:
    async with open_api(f"unix://{tmp_path}/none.sock", tmp_path) as api:
        assert (await ask(api)).status_code == 503
    async with open_api(f"unix://{tmp_path}/none.sock", tmp_path, api_keys="sk-1") as api:
        assert (await ask(api)).status_code == 401
        assert await keys.authenticate(api.backend, "Bearer sk-1") == "default"


@pytest.mark.parametrize("path", ["/v1/none", "/v1", "/v1/", "/v1/files/", "/v1/openapi.json"])
async def test_a_path_that_is_not_there_needs_a_key_too(valkey: EmbeddedValkey, tmp_path: Path, path: str) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="sk-1") as api:
        assert (await ask(api, path=path)).status_code == 401
        assert (await ask(api, "sk-1", path)).status_code == 404


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
async def test_health_and_the_schema_need_no_key(valkey: EmbeddedValkey, tmp_path: Path, path: str) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="sk-1") as api:
        assert (await ask(api, path=path)).status_code == 200


async def test_a_body_is_not_read_before_the_key(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="sk-1") as api:
        for request in ({"content": b"{", "headers": {"content-type": "application/json"}}, {"content": b"0" * 2_000}):
            assert (await api.post("/v1/batches", **request)).status_code == 401


async def test_no_whole_key_is_logged(valkey: EmbeddedValkey, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = made(valkey, "team-b")
    with caplog.at_level(logging.DEBUG):
        async with open_api(valkey.url, tmp_path, api_keys=ENV_KEYS) as api:
            for key in (good, LONG_KEY, "sk-second-of-the-environment"):
                await ask(api, key)
    assert "/v1/models 401" in caplog.text
    assert [key for key in (good, LONG_KEY, "sk-second-of-the-environment") if key in caplog.text] == []


def run(valkey: EmbeddedValkey, *arguments: str) -> Result:
    return CliRunner().invoke(commands, ["keys", *arguments], env={"BATCHORD_REDIS_URL": valkey.url})


def rows(result: Result) -> Sequence[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_a_key_is_made_listed_and_revoked_at_the_command_line(valkey: EmbeddedValkey) -> None:
    assert "batchord keys create" in run(valkey, "list").stderr
    ((key,),) = rows(run(valkey, "create", "--tenant", "team-a", "--name", "nightly"))
    key_id = key.split("-")[2]
    head, row = rows(run(valkey, "list"))
    assert head == ["ID", "TENANT", "CREATED", "REVOKED", "NAME"]
    assert (row[0], row[1], row[-2:]) == (key_id, "team-a", ["-", "nightly"])
    assert key not in run(valkey, "list").output
    assert f"Key {key_id} of tenant team-a was revoked at 20" in run(valkey, "revoke", key_id).output
    _, row = rows(run(valkey, "list"))
    assert "-" not in row


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create"], "--tenant"),
        (["create", "--tenant", "Team"], "Invalid tenant 'Team'"),
        (["revoke", "0" * 16], "batchord keys list"),
    ],
)
def test_a_wrong_call_is_refused_with_what_is_wrong(valkey: EmbeddedValkey, arguments: list[str], said: str) -> None:
    result = run(valkey, *arguments)
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)


@pytest.mark.parametrize("command", ["create", "list", "revoke"])
def test_each_command_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(commands, ["keys", command, "--help"])
    assert result.exit_code == 0
    assert [line for line in result.output.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "rebound.example:8080"},
        {"host": "10.0.0.1"},
        {"host": "["},
        {"origin": "https://page.example"},
        {"origin": "null"},
    ],
)
async def test_without_keys_a_page_in_a_browser_is_not_let_in(
    valkey: EmbeddedValkey, tmp_path: Path, headers: dict[str, str]
) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        answer = await api.get("/v1/files", headers=headers)
        assert (answer.status_code, "BATCHORD_API_KEYS" in answer.text) == (401, True)
        made_key = {"authorization": f"Bearer {made(valkey, 'team-b')}"}
        assert (await api.get("/v1/files", headers=headers | made_key)).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.1.2.3"])
async def test_without_keys_this_machine_is_let_in_by_any_of_its_names(
    valkey: EmbeddedValkey, tmp_path: Path, host: str
) -> None:
    async with open_api(valkey.url, tmp_path) as api:
        answer = await api.get("/v1/files", headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 200
