"""The commands of a producer: `submit`, `status`, `results` and `cancel` speak to a running fleet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchord.batch import Batch
from batchord.cli.dedupe import DEDUPE
from batchord.cli.exits import SOME_FAILED, SUCCEEDED
from batchord.cli.money import DOLLARS, dollars
from batchord.client import Client
from batchord.errors import ConflictError
from batchord.lifecycle import Status
from batchord.standing import Troubles

if TYPE_CHECKING:
    from batchord.state.batches import BatchRecord


@click.command()
@click.argument("input_path", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--completion-window", default="24h", show_default=True, help="Lines not sent by then expire.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch; may be given 16 times.")
@click.option("--max-cost", type=DOLLARS, help="Dollars at which nothing more is sent.")
@DEDUPE
@click.option("--wait", is_flag=True, help="Show the progress until the batch has ended.")
def submit(  # noqa: PLR0913 (the command's options)
    input_path: Path,
    completion_window: str,
    metadata: tuple[str, ...],
    max_cost: float | None,
    dedupe: bool | None,
    *,
    wait: bool,
) -> None:
    """Hand the input file IN to the fleet of BATCHORD_REDIS_URL and print the batch's id."""
    pairs = dict(_pair(text) for text in metadata) or None
    batch = Client().submit(
        input_path, metadata=pairs, completion_window=completion_window, max_cost=max_cost, dedupe=dedupe
    )
    click.echo(batch.id)
    if wait:
        batch.wait(progress=True)
        sys.exit(exit_code(batch.read()))


@click.command()
@click.argument("batch_id")
def status(batch_id: str) -> None:
    """Print a batch as JSON; on standard error, what its lines wait for, if that is out of the ordinary."""
    client = Client()
    record = Batch(client, batch_id).read()
    click.echo(record.batch.model_dump_json(indent=2))
    if troubles := Troubles(client.state).of(record):
        click.echo(troubles, err=True)


@click.command()
@click.argument("batch_id")
@click.option("--errors", is_flag=True, help="The lines that did not succeed, in place of those that did.")
def results(batch_id: str, *, errors: bool) -> None:
    """Write the output file of a batch that has ended to standard output."""
    batch = Batch(Client(), batch_id)
    record = batch.read()
    if not record.batch.status.is_terminal:
        raise ConflictError(f"Batch {batch_id} is still {record.batch.status}; it has no results yet.")
    file_id = record.batch.error_file_id if errors else record.batch.output_file_id
    for chunk in batch.content(file_id) if file_id else ():
        sys.stdout.buffer.write(chunk)
    if record.is_over_budget:
        spent = dollars(record.cost_nanos)
        click.echo(f"The batch has cost {spent}, all of its max_cost: what was not sent is in --errors.", err=True)


@click.command()
@click.argument("batch_id")
def cancel(batch_id: str) -> None:
    """Cancel a batch: requests in flight finish, the rest is not sent."""
    click.echo(Batch(Client(), batch_id).cancel())


def exit_code(record: BatchRecord) -> int:
    """Give the exit code for a batch that has ended."""
    counts = record.batch.request_counts
    whole = record.batch.status is Status.COMPLETED and counts.completed == counts.total
    return SUCCEEDED if whole else SOME_FAILED


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--metadata")
    return key, value
