"""One run of `batchord run`, from wherever an earlier run of the same command left it to the written files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from batchord.batch import Batch, check_accepted
from batchord.cli.again import latest, unanswered
from batchord.cli.job import Job, digest
from batchord.cli.money import dollars
from batchord.cli.outputs import Counts, write_output
from batchord.contract import new_batch_id
from batchord.errors import ConfigError, NotFoundError
from batchord.lifecycle import Status
from batchord.prices import in_dollars
from batchord.providers_file import load_routes
from batchord.state.batches import limit_cost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchord.cli.local import LocalFleet
    from batchord.cli.outputs import Paths
    from batchord.state.batches import BatchRecord


class Run:
    """A run under way in a local fleet. Before anything is sent, the data directory says what for."""

    def __init__(
        self,
        fleet: LocalFleet,
        where: Paths,
        completion_window: str,
        max_cost_nanos: int | None,
        *,
        dedupe: bool | None = None,
    ) -> None:
        self._fleet = fleet
        self._where = where
        self._window = completion_window
        self._max_cost_nanos = max_cost_nanos
        self._dedupe = dedupe
        self._job = self._find_job()

    def bring_to_end(self) -> BatchRecord:
        """Run what is not answered yet, if anything, and give the last batch.

        Raises:
            InputRefusedError: the input has problems, so nothing was sent.
        """
        batch = Batch(self._fleet.client, self._job.batch_ids[-1])
        try:
            record = batch.read()
        except NotFoundError:
            record = self._submit(batch.id)
        else:
            record = self._go_on(batch, record)
        check_accepted(record)
        return record

    @property
    def records(self) -> list[BatchRecord]:
        """All batches of the run, the last one last."""
        return [batch.read() for batch in self._batches]

    def export(self) -> Counts:
        """Write the output file, and the errors file where there is anything to say; an old one goes."""
        successes, errors = self._results(succeeded=True), self._results(succeeded=False)
        counts = Counts(write_output(self._where.output, successes), write_output(self._where.errors, errors))
        if not counts.failed:
            self._where.errors.unlink(missing_ok=True)
        return counts

    def _find_job(self) -> Job:
        """Give the earlier run of this command, or note a new one."""
        input_digest, output = digest(self._where.input), str(self._where.output.absolute())
        earlier = Job.read(self._where.data_dir)
        if earlier and (earlier.input_digest, earlier.output) == (input_digest, output):
            return earlier
        if earlier and self._is_unfinished(earlier):
            raise ConfigError(
                f"{self._where.data_dir} holds an unfinished run of another input, or for the output {earlier.output}. "
                "Finish that one, or name another --data-dir for this one."
            )
        return self._note(Job((new_batch_id(),), input_digest, output))

    def _is_unfinished(self, job: Job) -> bool:
        try:
            return not Batch(self._fleet.client, job.batch_ids[-1]).status.is_terminal
        except NotFoundError:
            return False

    def _note(self, job: Job) -> Job:
        job.write(self._where.data_dir)
        return job

    def _submit(self, batch_id: str) -> BatchRecord:
        """Submit the batch that is noted; what it is of depends on whether it is the run's first."""
        max_cost = in_dollars(self._left_nanos(batch_id))
        self._fleet.start_workers()
        source = self._where.input if len(self._job.batch_ids) == 1 else self._rest_path
        self._fleet.client.submit(
            source, completion_window=self._window, max_cost=max_cost, dedupe=self._dedupe, batch_id=batch_id
        )
        return self._fleet.follow(batch_id)

    def _go_on(self, batch: Batch, record: BatchRecord) -> BatchRecord:
        if not record.batch.status.is_terminal:
            self._require_providers(record)
            if (left := self._left_nanos(batch.id)) is not None:
                self._fleet.client.state.run(limit_cost(batch.id, left))
            click.echo(f"Going on with a run of which {record.recorded:,} lines are done.", err=True)
            self._fleet.client.revive(batch.id)
            self._fleet.start_workers()
            return self._fleet.follow(batch.id)
        if record.batch.status is Status.FAILED:
            self._job = self._note(self._job.instead(new_batch_id()))
            return self._submit(self._job.batch_ids[-1])
        if rest := self._write_rest(record):
            following = new_batch_id()
            self._left_nanos(following)  # what cannot be paid is not begun
            click.echo(f"Sending the {rest:,} lines again that have no final answer yet.", err=True)
            self._job = self._note(self._job.also(following))
            return self._submit(following)
        click.echo("This run is complete; nothing is sent again.", err=True)
        return record

    def _left_nanos(self, batch_id: str) -> int | None:
        """Give what a batch may cost by --max-cost, which also counts what the other batches have cost."""
        if self._max_cost_nanos is None:
            return None
        spent = sum(batch.read().cost_nanos for batch in self._batches if batch.id != batch_id)
        if spent >= self._max_cost_nanos:
            raise ConfigError(f"This run has cost {dollars(spent)} so far, all of --max-cost; raise it to go on.")
        return self._max_cost_nanos - spent

    def _require_providers(self, record: BatchRecord) -> None:
        """See to it that the providers of the lines already planned are still configured."""
        configured = load_routes(self._fleet.settings, os.environ).providers
        if gone := sorted(record.shards.keys() - configured.keys()):
            raise ConfigError(
                f"This unfinished run needs the provider {', '.join(gone)}, which is not configured any more. "
                "Configure it again under that name, or name another --data-dir to begin anew."
            )

    def _write_rest(self, record: BatchRecord) -> int:
        """Write the requests without a final answer as the next batch's input; how many there are."""
        if record.batch.error_file_id is None:
            return 0
        return write_output(self._rest_path, unanswered(latest(self._where.input, self._batches)))

    def _results(self, *, succeeded: bool) -> Iterator[bytes]:
        """Give the lines of the output file, or else of the errors file, in the input's order."""
        if len(self._batches) > 1:
            lines = (line for line in latest(self._where.input, self._batches) if line.succeeded is succeeded)
            return (line.result + b"\n" for line in lines if line.result is not None)
        (batch,) = self._batches
        record = batch.read().batch
        file_id = record.output_file_id if succeeded else record.error_file_id
        return batch.content(file_id) if file_id else iter(())

    @property
    def _batches(self) -> list[Batch]:
        return [Batch(self._fleet.client, batch_id) for batch_id in self._job.batch_ids]

    @property
    def _rest_path(self) -> Path:
        return self._where.data_dir / "rest.jsonl"
