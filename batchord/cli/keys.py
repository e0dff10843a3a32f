"""`batchord keys`: the API keys that are kept in Redis. Not for those of BATCHORD_API_KEYS."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

import click

from batchord.service import keys as service
from batchord.settings import read_settings
from batchord.state import api_keys
from batchord.state.connection import BlockingState


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of the server whose Redis is BATCHORD_REDIS_URL.

    A key speaks for a tenant: files and batches belong to the tenant, whichever of its keys made them, and no other
    tenant sees them. From the first key on, every request needs one.

    \b
    A key for a team, and its use:
      batchord keys create --tenant search --name "nightly job"
      OPENAI_API_KEY=sk-batchord-... OPENAI_BASE_URL=http://HOST:8080/v1
    """  # noqa: D301 (click's mark of a paragraph to keep as it is)


@keys.command()
@click.option("--tenant", required=True, help="Whose key it is: lower-case letters, digits, - and _.")
@click.option("--name", default="", help="What it is for, to tell it from others in the list.")
def create(tenant: str, name: str) -> None:
    """Make a key and print it. Only its hash is kept, so this is the one time that it is shown."""
    with closing(_state()) as state:
        key, text = service.create(state, tenant, name)
    click.echo(f"Key {key.id} of tenant {tenant}; it is not shown again:", err=True)
    click.echo(text)


@keys.command("list")
def list_() -> None:
    """List every key, the oldest first: its id, whose it is, and whether it is revoked."""
    with closing(_state()) as state:
        known = state.run(api_keys.every())
    if not known:
        click.echo("There is no key yet. Make one with: batchord keys create --tenant NAME", err=True)
        return
    rows = [(key.id, key.tenant, _time(key.created_at), _time(key.revoked_at) or "-", key.name) for key in known]
    table = [("ID", "TENANT", "CREATED", "REVOKED", "NAME"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Have the key ID, as the list shows it, refused from now on. What was made with it stays its tenant's."""
    with closing(_state()) as state:
        key = service.revoke(state, key_id)
    click.echo(f"Key {key.id} of tenant {key.tenant} was revoked at {_time(key.revoked_at)}.")


def _state() -> BlockingState:
    return BlockingState(read_settings().redis_url)


def _time(epoch_s: int | None) -> str:
    return "" if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
