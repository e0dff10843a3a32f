"""`batchord run`: an input file in, an output file out, by a fleet of its own that leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from batchord.cli.dedupe import DEDUPE
from batchord.cli.exits import INTERRUPTED, SOME_FAILED, SUCCEEDED
from batchord.cli.local import InterruptedRunError, LocalFleet
from batchord.cli.money import DOLLARS
from batchord.cli.outputs import Paths, check_apart, check_room, check_writable
from batchord.cli.patience import PATIENCE, patience_s
from batchord.cli.runs import Run
from batchord.cli.size import WORKERS, by_input
from batchord.cli.summary import Summary, tell
from batchord.creation import max_cost_nanos
from batchord.providers_file import load_routes
from batchord.settings import read_settings

_KEPT_S: Final = 100 * 365 * 86_400
"""A run's data is its user's, who deletes the folder: what was forgotten would be sent, and billed, again."""


@click.command()
@click.argument("input_path", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the successes go, as JSONL."
)
@click.option(
    "--errors", type=click.Path(path_type=Path), help="Where the other lines go.  [default: OUT.errors.jsonl]"
)
@click.option(
    "--providers",
    type=click.Path(path_type=Path),
    help="The providers file.  [default: BATCHORD_PROVIDERS, or OPENAI_BASE_URL]",
)
@click.option("--workers", type=WORKERS, help="Worker processes.  [default: by the size of IN, at most one a core]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="What a resumed run needs.  [default: OUT.batchord]")
@click.option("--completion-window", default="30d", show_default=True, help="Lines not sent by then expire.")
@click.option(
    "--give-up-after",
    "give_up_after_s",
    type=PATIENCE,
    metavar="SECONDS|never",
    help="Fail the lines of a provider that has not answered for so long.  [default: BATCHORD_GIVE_UP_AFTER_S, or 300]",
)
@click.option("--max-cost", type=DOLLARS, help="Dollars, in all runs of this command, at which nothing more is sent.")
@DEDUPE
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def run(  # noqa: PLR0913, PLR0917 (the command's options)
    input_path: Path,
    output: Path,
    errors: Path | None,
    providers: Path | None,
    workers: int | None,
    data_dir: Path | None,
    completion_window: str,
    give_up_after_s: float | None,
    max_cost: float | None,
    dedupe: bool | None,
    as_json: bool,
) -> None:
    """Run every request of the input file IN and write the answers, in the input's order.

    It starts a private Valkey and its workers, shows the progress, and ends them. Ctrl-C finishes the requests in
    flight and keeps what is done; the same command run again goes on from there and sends nothing that is answered.
    After the end it sends again only what had no final answer: no answer at all, 408, 409, 429 or 5xx.

    A provider that asks for a pause, or fails for a while, costs no line an attempt: lines wait, and the progress says
    what for. Only where it does not answer at all for --give-up-after, its lines fail with the reason.

    \b
    Exit codes: 0 all lines succeeded; 1 some did not, see the errors file;
                2 the input was refused, with the reasons, and nothing was sent;
                3 it could not be carried out; 130 interrupted.
    """  # noqa: D301 (click's mark of a paragraph to keep as it is)
    where = Paths(
        input=input_path,
        output=output,
        errors=errors or output.with_name(f"{output.stem}.errors.jsonl"),
        data_dir=(data_dir or output.with_name(f"{output.name}.batchord")).absolute(),
    )
    given = {"providers": providers.absolute()} if providers else {}
    settings = read_settings(data_dir=where.data_dir, retention_s=_KEPT_S, **given)
    settings = settings.model_copy(update={"give_up_after_s": patience_s(give_up_after_s, settings)})
    load_routes(settings, os.environ, needs_keys=True)
    check_apart(where)
    for path in (where.output, where.errors):
        check_writable(path)
    check_room(where.data_dir, where.input)
    try:
        with LocalFleet(settings, by_input(where.input.stat().st_size, workers)) as fleet:
            this = Run(fleet, where, completion_window, max_cost_nanos(max_cost), dedupe=dedupe)
            this.bring_to_end()
            summary = Summary(this.records, this.export(), where)
    except InterruptedRunError as error:
        click.echo(str(error), err=True)
        sys.exit(INTERRUPTED)
    tell(summary, as_json=as_json)
    sys.exit(SOME_FAILED if summary.counts.failed else SUCCEEDED)
