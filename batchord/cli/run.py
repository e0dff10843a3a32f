"""`batchord run`: an input file in, an output file out, by a fleet of its own that leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchord.batch import problem_line
from batchord.cli.clients import exit_code
from batchord.cli.exits import INTERRUPTED
from batchord.cli.job import Job, digest
from batchord.cli.local import InterruptedRunError, LocalFleet
from batchord.cli.outputs import Paths, check_room, check_writable, write_output
from batchord.cli.summary import most_common_error, tell
from batchord.errors import ConfigError, InputRefusedError, NotFoundError
from batchord.lifecycle import Status
from batchord.settings import load_routes, read_settings, require_keys

if TYPE_CHECKING:
    from batchord.batch import Batch
    from batchord.client import Client
    from batchord.contract import BatchObject
    from batchord.settings import Settings
    from batchord.state.batches import BatchRecord


@click.command()
@click.argument("input_path", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the successes go, as JSONL."
)
@click.option(
    "--errors", type=click.Path(path_type=Path), help="Where the other lines go.  [default: OUT.errors.jsonl]"
)
@click.option("--providers", type=click.Path(path_type=Path), help="The providers file.  [default: OPENAI_BASE_URL]")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="What a resumed run needs.  [default: OUT.batchord]")
@click.option("--completion-window", default="30d", show_default=True, help="Lines not sent by then expire.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def run(  # noqa: PLR0913, PLR0917 (the command's options)
    input_path: Path,
    output: Path,
    errors: Path | None,
    providers: Path | None,
    workers: int,
    data_dir: Path | None,
    completion_window: str,
    as_json: bool,
) -> None:
    r"""Run every request of the input file IN and write the answers, in the input's order.

    It starts a private Valkey and its workers, shows the progress, and ends them. Ctrl-C finishes the requests in
    flight and keeps what is done; the same command run again goes on from there and sends nothing twice.

    \b
    Exit codes: 0 all lines succeeded; 1 some did not, see the errors file;
                2 the input was refused, with the reasons, and nothing was sent;
                3 it could not be carried out; 130 interrupted.
    """
    where = Paths(
        input=input_path,
        output=output,
        errors=errors or output.with_name(f"{output.stem}.errors.jsonl"),
        data_dir=(data_dir or output.with_name(f"{output.name}.batchord")).absolute(),
    )
    given = {"providers": providers.absolute()} if providers else {}
    settings = read_settings(data_dir=where.data_dir, **given)
    require_keys(load_routes(settings, os.environ), os.environ)
    for path in (where.output, where.errors):
        check_writable(path)
    check_room(where.data_dir, where.input)
    try:
        record = _run(settings, workers, where, completion_window)
    except InterruptedRunError as error:
        click.echo(str(error), err=True)
        sys.exit(INTERRUPTED)
    reason = most_common_error(where.errors) if record.batch.error_file_id else None
    tell(record, where, reason, as_json=as_json)
    sys.exit(exit_code(record))


def _run(settings: Settings, workers: int, where: Paths, completion_window: str) -> BatchRecord:
    """Run the batch, new or gone on with, and write its files."""
    with LocalFleet(settings, workers) as fleet:
        batch = _earlier(fleet.client, where)
        if batch is None:
            fleet.start_workers()
            batch = _begin(fleet.client, where, completion_window)
            record = fleet.follow(batch.id)
        elif (record := batch.read()).batch.status.is_terminal:
            click.echo("This run is complete; nothing is sent again.", err=True)
        else:
            fleet.client.revive(batch.id)
            click.echo(f"Going on with a run of which {record.recorded:,} lines are done.", err=True)
            fleet.start_workers()
            record = fleet.follow(batch.id)
        if record.batch.status is Status.FAILED:
            raise InputRefusedError([problem_line(problem) for problem in record.batch.errors])
        _export(batch, record.batch, where)
    return record


def _earlier(client: Client, where: Paths) -> Batch | None:
    """Give the batch that an earlier run of the same command began; None where there is none to go on with.

    Raises:
        ConfigError: the data directory holds another run that is not finished.
    """
    job = Job.read(where.data_dir)
    if job is None:
        return None
    try:
        batch = client.batch(job.batch_id)
    except NotFoundError:
        return None
    same = job.input_digest == digest(where.input) and job.output == str(where.output.absolute())
    status = batch.status
    if same:
        return None if status is Status.FAILED else batch
    if status.is_terminal:
        return None
    raise ConfigError(
        f"{where.data_dir} holds an unfinished run of another input, or for the output {job.output}. "
        "Finish that one, or name another --data-dir for this one."
    )


def _begin(client: Client, where: Paths, completion_window: str) -> Batch:
    batch = client.submit(where.input, completion_window=completion_window)
    Job(batch.id, digest(where.input), str(where.output.absolute())).write(where.data_dir)
    return batch


def _export(batch: Batch, record: BatchObject, where: Paths) -> None:
    """Write the output file, and the errors file where there is anything to say; an old one goes."""
    write_output(where.output, batch.content(record.output_file_id) if record.output_file_id else ())
    if record.error_file_id:
        write_output(where.errors, batch.content(record.error_file_id))
    else:
        where.errors.unlink(missing_ok=True)
