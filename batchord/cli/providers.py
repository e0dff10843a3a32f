"""`batchord providers`: how the providers are at the moment, and whether the file that configures them is right."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from batchord.cli.connect import connect
from batchord.cli.exits import REFUSED, SOME_FAILED
from batchord.embedded import EmbeddedValkey
from batchord.errors import ConfigError, UnavailableError
from batchord.providers_file import load_routes, read_providers_file
from batchord.providers_sense import key_variable
from batchord.routing import LEARNED_MOST, Routes
from batchord.service.providers import read
from batchord.settings import read_settings
from batchord.state.connection import BlockingState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table

    from batchord.routing import ModelLimits, Provider
    from batchord.service.providers import ProviderStanding
    from batchord.settings import Settings

_REFRESH_S: Final = 1.0
_PLACES: Final = 16
_COLUMNS: Final = (
    "provider",
    "state",
    "in flight",
    "left",
    "waiting",
    "requests/min",
    "tokens/min",
    "429s",
    "failed",
    "workers",
)
_TEXTS: Final = _COLUMNS[:2]


@click.group(invoke_without_command=True)
@click.option(
    "--providers", type=click.Path(path_type=Path), help="The providers file, in place of BATCHORD_PROVIDERS."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="That of a run or a server on this machine, in place of BATCHORD_REDIS_URL.",
)
@click.option("--once", is_flag=True, help="Print the table once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as the API's /v1/providers has it.")
@click.pass_context
def providers(
    context: click.Context, providers: Path | None, data_dir: Path | None, *, once: bool, as_json: bool
) -> None:
    """Show how fast a fleet may go, and why: a live table, until Ctrl-C.

    The fleet is that of BATCHORD_REDIS_URL. Beside `batchord run -o out.jsonl` or `batchord serve`, name
    what they run in: --data-dir out.jsonl.batchord, or batchord-data.

    \b
    state      ok
               paused    it asked to be left alone for a while (429, Retry-After)
               open      it fails; nothing is sent, until a request tries it again
               probing   that request is under way
               silent    it has never answered
    in flight  requests under way, in the whole fleet
    left       how many more may be now: of what is stated, or of what is learned
    waiting    lines that wait in workers: for a permit, the pace, a pause's end
    requests   sent a minute, by the last 10 s, of the limit: stated or learned
    tokens     of the answers a minute, of the limit: stated or learned
    429s       requests that it refused, and
    failed     those that it failed or never answered, since the workers started

    A paused provider costs no line an attempt: lines wait, and go on by themselves.
    """  # noqa: D301 (click's mark of a paragraph to keep as it is)
    if context.invoked_subcommand is not None:
        return
    redis_url = EmbeddedValkey(data_dir).url if data_dir else None
    given = {"providers": providers, "redis_url": redis_url}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    with closing(BlockingState(settings.redis_url)) as state:
        environ = {} if data_dir else os.environ  # those of a run or a server that is named may be others
        look = partial(read, state, _known_routes(settings, environ))
        if as_json:
            click.echo(json.dumps({"object": "list", "data": [standing.model_dump() for standing in look()]}, indent=2))
        elif once or not sys.stdout.isatty():
            _print(look())
        else:
            _watch(look)


@providers.command()
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--connect", "connects", is_flag=True, help="Ask each provider for its models too; it costs nothing.")
def check(path: Path | None, *, connects: bool) -> None:
    """Check the providers file FILE, or that of BATCHORD_PROVIDERS; send no line.

    It says every problem with its line, the field and what to write, then what each provider may do. A limit that is
    not stated is learned: from the provider's headers, and from what it bears.

    \b
    Exit codes: 0 the file may be used; 1 it may, but a provider could not be asked;
                2 it has problems, one a line on standard error.
    """  # noqa: D301 (click's mark of a paragraph to keep as it is)
    path = path or read_settings().providers
    if path is None:
        raise click.UsageError("Name a providers file, or set BATCHORD_PROVIDERS.")
    try:
        routes, notes = read_providers_file(path, os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(REFUSED)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{path}: {len(routes.providers)} providers")
    for provider in routes.providers.values():
        click.echo("\n".join(_summary(provider)))
    if connects and not _connect_all(routes):
        sys.exit(SOME_FAILED)


def _known_routes(settings: Settings, environ: Mapping[str, str]) -> Routes:
    """Give the providers that are configured here; elsewhere than on the fleet's machines there may be none."""
    try:
        return load_routes(settings, environ)
    except ConfigError:
        if settings.providers is not None:
            raise
        return Routes([])


def _print(standings: Sequence[ProviderStanding]) -> None:
    """Print the table as plain text."""
    rows = [_COLUMNS, *map(_row, standings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())
    for message in filter(None, (standing.message for standing in standings)):
        click.echo(message)


def _watch(look: Callable[[], Sequence[ProviderStanding]]) -> None:
    """Show the table until Ctrl-C; it stays on the screen."""
    from rich.live import Live  # noqa: PLC0415 (slow to import: not before there is something to see)

    shown = _table(look())
    with suppress(KeyboardInterrupt), Live(shown, auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_S)
            try:
                shown = _table(look())
            except UnavailableError as error:
                shown.caption = str(error)
            live.update(shown, refresh=True)


def _table(standings: Sequence[ProviderStanding]) -> Table:
    from rich.markup import escape  # noqa: PLC0415 (as above)
    from rich.table import Table  # noqa: PLC0415 (as above)

    messages = [escape(standing.message) for standing in standings if standing.message]
    caption = "\n".join(messages)
    table = Table(box=None, pad_edge=False, collapse_padding=True, caption=caption, caption_justify="left")
    for name in _COLUMNS:
        table.add_column(name.replace(" ", "\n").replace("/", "\n/"), justify="left" if name in _TEXTS else "right")
    for standing in standings:
        table.add_row(*_row(standing), style="" if standing.state == "ok" else "yellow")
    return table


def _row(standing: ProviderStanding) -> tuple[str, ...]:
    limits = standing.in_force
    return (
        standing.id,
        standing.state,
        f"{standing.in_flight:,}",
        f"{standing.permits_left:,}",
        f"{standing.waiting:,}",
        _rate(standing.rate_per_minute, limits.requests_per_minute),
        _rate(standing.token_rate_per_minute, limits.tokens_per_minute),
        f"{standing.refused:,}",
        f"{standing.failed:,}",
        f"{standing.workers:,}",
    )


def _rate(per_minute: float, limit: int | None) -> str:
    return f"{round(per_minute):,}" + (f" of {limit:,}" if limit is not None else "")


def _limits(limits: Provider | ModelLimits) -> str:
    """Say what is stated; what is not is left out."""
    stated = {
        "{:,} in flight": limits.max_concurrency,
        "{:,} requests/min": limits.requests_per_minute,
        "{:,} tokens/min": limits.tokens_per_minute,
    }
    return ", ".join(text.format(most) for text, most in stated.items() if most is not None)


def _summary(provider: Provider) -> list[str]:
    """Say what a provider is and may do, with nothing that may be secret."""
    host = urlsplit(provider.base_url).hostname
    facts = [
        provider.kind + (f" at {host}" if host else ""),
        f"models {', '.join(provider.models)}",
        *([f"key of {variable}"] if (variable := key_variable(provider)) else []),
        *([f"weight {provider.weight:g}"] if provider.weight is not None else []),
        *([f"fallback {', '.join(provider.fallback)}"] if provider.fallback else []),
    ]
    lines = [
        f"  {provider.name}: {'; '.join(facts)}",
        f"    limits: {_limits(provider) or 'none stated'}{_learned(provider)}",
    ]
    return [*lines, *(f"    {glob}: {_limits(limits) or 'no limits'}" for glob, limits in provider.limits.items())]


def _learned(provider: Provider) -> str:
    """Say what the fleet finds out for itself."""
    if provider.kind == "simulated":
        return ""
    tells = provider.rate_headers
    learned = {
        f"requests in flight (at most {LEARNED_MOST:,})": provider.max_concurrency is None,
        "requests/min": provider.requests_per_minute is None and tells not in {"none", "daily_requests"},
        "tokens/min": provider.tokens_per_minute is None and tells != "none",
    }
    names = ", ".join(name for name, is_learned in learned.items() if is_learned)
    return f"; learned: {names}" if names else ""


def _connect_all(routes: Routes) -> bool:
    """Say for each provider whether it answers; give whether all do."""
    asked = list(routes.providers.values())
    with ThreadPoolExecutor(_PLACES) as threads:
        contacts = list(threads.map(partial(connect, environ=os.environ), asked))
    for provider, contact in zip(asked, contacts, strict=True):
        click.echo(f"{provider.name}: {contact.text}")
    return all(contact.is_well for contact in contacts)
