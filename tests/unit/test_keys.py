"""How keys are read from the environment, shown, made and revoked; whom a server without keys lets in."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from batchord.errors import ConfigError, InvalidRequestError, NotFoundError
from batchord.service import keys
from batchord.settings import Settings
from batchord.state import api_keys
from batchord.state.connection import BlockingState
from batchord.state.keys import API_KEYS
from tests.unit.fake_state import FakeState, fields

if TYPE_CHECKING:
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey


def digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("sk-1", [("default", "sk-1")]),
        ("team-a:sk-1, team_2:sk-2", [("team-a", "sk-1"), ("team_2", "sk-2")]),
        ("a:sk-1,a:sk-1", [("a", "sk-1"), ("a", "sk-1")]),
    ],
)
def test_keys_are_read_with_their_tenants(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(keys.configured_keys(text)) == [(tenant, digest(key)) for tenant, key in expected]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (",", 1),
        ("sk-secret,", 2),
        ("team-a:", 1),
        (":sk-secret", 1),
        ("Team:sk-secret", 1),
        ("-a:sk-secret", 1),
        ("a" * 64 + ":sk-secret", 1),
        ("a:b:sk-secret", 1),
        ("ok,a:sk secret", 2),
        ("a:sk-s€cret", 1),
        ("a:sk-secret,b:sk-secret", 1),
    ],
)
def test_nonsense_among_the_keys_is_refused_without_being_shown(text: str, entry: int) -> None:
    with pytest.raises(ConfigError, match=f"BATCHORD_API_KEYS: .*entry {entry} ") as caught:
        keys.configured_keys(text)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sk-abcdefghijklmnopqrstuvwxyz", "sk-ab***yz"),
        ("sk-short", "***"),
        ("sk-with\nits own line", "***"),
        ("", "***"),
    ],
)
def test_a_key_is_shown_masked(key: str, shown: str) -> None:
    assert keys.masked(key) == shown


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 (told apart, not bound)
        ("::", False),
        ("", False),
        ("192.168.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_told_from_what_others_reach(host: str, expected: bool) -> None:
    assert keys.is_loopback(host) is expected


@pytest.mark.parametrize("tenant", ["", "Team", "a b", "-a", "a" * 64, "a\n", "ä"])
def test_a_tenant_s_name_that_is_none_is_refused(tenant: str) -> None:
    state = FakeState()
    with pytest.raises(InvalidRequestError, match="Invalid tenant"):
        keys.create(state, tenant)
    assert state.run(api_keys.every()) == []


def test_only_the_hash_of_a_key_s_secret_is_kept() -> None:
    state = FakeState()
    key, text = keys.create(state, "team-a", "nightly")
    prefix, name, key_id, secret = text.split("-")
    assert (prefix, name, key_id) == ("sk", "batchord", key.id)
    assert (key.tenant, key.name, key.revoked_at) == ("team-a", "nightly", None)
    kept = fields(state, API_KEYS)[key.id]
    assert secret not in kept
    assert digest(secret).hex() in kept


def test_a_revoked_key_is_kept_with_the_time_of_its_end() -> None:
    state = FakeState()
    key, _ = keys.create(state, "team-a")
    revoked = keys.revoke(state, key.id)
    assert revoked.revoked_at is not None
    assert keys.revoke(state, key.id) == revoked
    assert state.run(api_keys.every()) == [revoked]
    assert state.run(api_keys.find(key.id)) == (revoked, True)


def test_a_key_that_is_not_there_cannot_be_revoked() -> None:
    with pytest.raises(NotFoundError, match="batchord keys list"):
        keys.revoke(FakeState(), "0" * 16)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_key_that_is_not_there_is_not_found(protocol: int) -> None:
    state = FakeState(protocol)
    assert state.run(api_keys.find("0" * 16)) == (None, False)
    keys.create(state, "team-a")
    assert state.run(api_keys.find("0" * 16)) == (None, True)


PUBLIC = "0.0.0.0"  # noqa: S104 (nothing is bound)


def test_serving_others_without_a_key_is_refused(valkey: EmbeddedValkey) -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0.*batchord keys create"):
        keys.require_key(Settings(redis_url=valkey.url, host=PUBLIC))


def test_serving_others_with_a_key_of_the_environment_is_fine(tmp_path: Path) -> None:
    keys.require_key(Settings(redis_url=f"unix://{tmp_path}/none.sock", host=PUBLIC, api_keys="sk-1"))


def test_serving_others_with_a_key_of_redis_is_fine(valkey: EmbeddedValkey) -> None:
    state = BlockingState(valkey.url)
    keys.create(state, "team-a")
    state.close()
    keys.require_key(Settings(redis_url=valkey.url, host=PUBLIC))


def test_serving_this_machine_without_a_key_is_warned_of(
    valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        keys.require_key(Settings(redis_url=valkey.url))
    assert ["no API key" in record.getMessage() for record in caplog.records] == [True]


def test_nonsense_among_the_keys_stops_the_start(valkey: EmbeddedValkey) -> None:
    with pytest.raises(ConfigError, match="BATCHORD_API_KEYS"):
        keys.require_key(Settings(redis_url=valkey.url, api_keys=","))
