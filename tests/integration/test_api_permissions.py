"""Each route under each kind of key: none, a wrong one, a revoked one, another tenant's, the owner's."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from app import create_app
from batchord.service import keys
from batchord.settings import Settings
from batchord.state.connection import BlockingState
from tests.integration.api import open_api
from tests.integration.api_routes import KEYS, NEW_BATCH, ROUTES, UNKNOWN, ask, made

if TYPE_CHECKING:
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

OTHER = {"Authorization": "Bearer sk-other"}
each_route = pytest.mark.parametrize(("method", "path"), ROUTES)
each_route_with_an_id = pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if any(f"{{{name}}}" in route[1] for name in UNKNOWN)]
)


def test_the_table_has_every_route() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    served = {(method.upper(), path) for path, item in paths.items() for method in item if path.startswith("/v1")}
    assert served - set(ROUTES) == set()


@each_route
@pytest.mark.parametrize("key", [None, "sk-wrong", "sk-owner-and-more", ""])
async def test_no_key_or_a_wrong_one_is_refused(
    valkey: EmbeddedValkey, tmp_path: Path, method: str, path: str, key: str | None
) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        answer = await ask(api, method, path, key, {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")


@each_route
async def test_a_revoked_key_is_refused(valkey: EmbeddedValkey, tmp_path: Path, method: str, path: str) -> None:
    with closing(BlockingState(valkey.url)) as state:
        key, text = keys.create(state, "team-a")
        keys.revoke(state, key.id)
    async with open_api(valkey.url, tmp_path) as api:
        answer = await ask(api, method, path, text, {})
    assert answer.status_code == 401


@each_route_with_an_id
async def test_another_tenant_s_id_is_answered_as_an_unknown_one(
    valkey: EmbeddedValkey, tmp_path: Path, method: str, path: str
) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        ids = await made(api)
        foreign, unknown = await ask(api, method, path, "sk-other", ids), await ask(api, method, path, "sk-other", {})
    assert foreign.status_code == unknown.status_code == 404
    said = foreign.text
    for name, value in ids.items():
        said = said.replace(value, UNKNOWN[name])
    assert said == unknown.text


@each_route
async def test_the_owner_is_let_in(valkey: EmbeddedValkey, tmp_path: Path, method: str, path: str) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        answer = await ask(api, method, path, "sk-owner", await made(api))
    if path not in {"/v1/models/{model}", "/v1/providers/{provider}"}:  # none is configured, and so no model
        assert answer.status_code in {200, 400, 409}, answer.text


async def test_another_tenant_s_lists_are_empty(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        await made(api)
        own = [(await ask(api, "GET", path, "sk-owner", {})).json()["data"] for path in ("/v1/files", "/v1/batches")]
        others = [(await ask(api, "GET", path, "sk-other", {})).json()["data"] for path in ("/v1/files", "/v1/batches")]
    assert [len(data) for data in own] == [2, 1]
    assert others == [[], []]


async def test_another_tenant_s_file_cannot_be_a_batch_s_input(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        ids = await made(api)
        new = {**NEW_BATCH, "input_file_id": ids["file_id"]}
        answer = await api.post("/v1/batches", json=new, headers={"Authorization": "Bearer sk-other"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"Cannot find file {ids['file_id']}")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/files?after={}", "file_id"),
        ("/v1/files?order=asc&after={}", "file_id"),
        ("/v1/batches?after={}", "batch_id"),
        ("/v1/batches?active_first=true&after={}", "batch_id"),
        ("/v1/batches?search={0}&after={0}", "batch_id"),
    ],
)
async def test_a_page_after_another_tenant_s_id_is_answered_as_after_an_unknown_one(
    valkey: EmbeddedValkey, tmp_path: Path, path: str, name: str
) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        ids = await made(api)
        foreign, unknown = [await api.get(path.format(id_), headers=OTHER) for id_ in (ids[name], UNKNOWN[name])]
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace(ids[name], UNKNOWN[name]) == unknown.text


async def test_another_tenant_s_part_cannot_be_completed_into_a_file(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        ids = await made(api)
        part = (await ask(api, "POST", "/v1/uploads/{upload_id}/parts", "sk-owner", ids)).json()["id"]
        own = (await ask(api, "POST", "/v1/uploads", "sk-other", {})).json()["id"]
        answer = await api.post(f"/v1/uploads/{own}/complete", json={"part_ids": [part]}, headers=OTHER)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == f"Part '{part}' does not belong to this upload."


async def test_of_two_authorization_headers_the_first_says_who_asks(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    owner, other, wrong = (("Authorization", f"Bearer sk-{name}") for name in ("owner", "other", "wrong"))
    async with open_api(valkey.url, tmp_path, api_keys=KEYS) as api:
        await made(api)
        found = [await api.get("/v1/files", headers=[owner, other]), await api.get("/v1/files", headers=[other, owner])]
        refused = await api.get("/v1/files", headers=[wrong, owner])
    assert [len(answer.json()["data"]) for answer in found] == [2, 0]
    assert refused.status_code == 401
