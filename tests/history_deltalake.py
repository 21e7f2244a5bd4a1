"""A process of test_history.py that works on the same tables with PyPI's deltalake, and records its calls alike."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import deltalake.exceptions

from history import NO, YES, Row
from history_child import JOBS, ROUNDS_PER_JOB, TABLES, Work, arrow, digest
from history_log import keep
from history_record import Recorder


def lost(error: Exception) -> bool:
    """Whether another writer was faster: its commit is in the log, and this one is not."""
    return isinstance(error, deltalake.exceptions.CommitFailedError)


class Worker:
    """Each action opens the table anew, as a short program does."""

    def __init__(self, work: Work) -> None:
        """Has done nothing yet."""
        self.work = work
        self.random = random.Random(f"{work.seed}/{work.who}")
        self.record = Recorder(work.recording, work.who)
        self.round = 0

    def path(self, table: str) -> Path:
        return Path(self.work.root, table)

    def some_job(self) -> str:
        return f"JOB_{self.round // ROUNDS_PER_JOB}_{self.random.randrange(JOBS)}"

    def call(self, kind: str, table: str, work: Callable[[Any], Any], **recorded: Any) -> None:
        """Does something with the table. If it loses a race, it tries again, as another call."""

        def opened_anew() -> Any:
            # Within the call: what it does rests on the version that is opened.
            return work(deltalake.DeltaTable(self.path(table)))

        for _ in range(50):
            try:
                self.record.call(kind, table, opened_anew, wrote_nothing=lost, **recorded)
                return
            except deltalake.exceptions.CommitFailedError:
                continue
        raise AssertionError("deltalake lost 50 races")

    def append(self, table: str) -> None:
        rows = [
            Row("history.sas", self.some_job(), f"SUCCESS {self.work.who}/{self.round}.{n}", NO, 1_700_000_000_000_000)
            for n in range(self.random.randrange(1, 4))
        ]
        rows += rows[:1]
        given = arrow(table, rows)
        self.call("log", table, lambda opened: deltalake.write_deltalake(opened, given, mode="append"), given=rows)

    def update(self, table: str) -> None:
        job = self.some_job()
        predicate = f"autosys_update_flag = '{NO}' AND job_id = '{job}'"
        flag = {"autosys_update_flag": f"'{YES}'"}
        self.call(
            "update",
            table,
            lambda opened: opened.update(updates=flag, predicate=predicate),
            where={"job": job},
            result=lambda metrics: metrics["num_updated_rows"],
        )

    def vacuum(self, table: str) -> None:
        """It deletes what the version that was opened does not need. So all of it can be kept before."""

        def vacuum(opened: Any) -> None:
            keep(self.path(table), Path(self.work.kept))
            opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

        self.call("maintain", table, vacuum)

    def read(self, table: str) -> None:
        self.record.call(
            "digest", table, lambda: deltalake.DeltaTable(self.path(table)).to_pyarrow_table(), result=digest
        )


# Not optimize.compact(): from 1.6.4 to 1.6.6 its commit ignores that another OPTIMIZE, such as that of maintain(), has
# removed the same files, so that rows are doubled. docs/maintenance.md tells users.
ACTIONS = (Worker.append, Worker.update, Worker.read, Worker.append, Worker.vacuum)


def run(work: Work) -> None:
    """Does one action after the other, on both tables in turn."""
    worker = Worker(work)
    while worker.round < work.rounds:
        for table in TABLES:
            ACTIONS[worker.round % len(ACTIONS)](worker, table)
        worker.round += 1
