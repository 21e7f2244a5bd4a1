"""What the processes of test_history.py do: they log, read, acknowledge and maintain at random, recorded."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

import jobrota
from history import NO, YES, Row, digest_of
from history_log import keep
from history_record import Recorder, micros, rows_of

NOTIFICATIONS, EXECUTIONS = TABLES = ("job_notifications", "autosys_job_log")
TIME_OF = {NOTIFICATIONS: "notification_timestamp", EXECUTIONS: "execution_timestamp"}

JOBS = 5
"""So many jobs are in use at a time, by all processes."""
ROUNDS_PER_JOB = 12
"""After so many rounds of a process, it uses other jobs: reading one job shall not take longer and longer."""


@dataclass(frozen=True)
class Work:
    """What one process does."""

    root: str
    who: str
    recording: str
    seed: str
    rounds: int
    seconds: float = 0
    """If not zero, it works for so long, and `rounds` does not count."""
    until: str = ""
    """When this file exists, it ends."""
    pause: float = 0
    """The longest pause between two rounds, in seconds."""
    threads: int = 1
    first: tuple[str, ...] = ()
    """Actions that come first."""
    weights: dict[str, int] = field(default_factory=dict)
    """How often an action of `Worker` is done after these, where it is not the default."""
    retain: str = "5s"
    """A file that was removed so long ago is deleted by maintenance."""
    kept: str = ""
    """Where to keep data files before that, see `history_log.keep`."""
    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


WEIGHTS = {
    "log_one": 30,
    "log_many": 8,
    "log_both": 4,
    "acknowledge": 16,
    "update": 6,
    "settle": 2,
    "read_oldest": 6,
    "read_job": 8,
    "read_all": 3,
    "count": 3,
    "maintain": 1,
}


def wrote_nothing(error: Exception) -> bool:
    """Whether an error of ours says so."""
    return isinstance(error, jobrota.errors.ConflictError | jobrota.errors.InvalidInputError)


class Worker:
    """Does one action after the other, each drawn at random."""

    def __init__(self, work: Work, recorder: Recorder, ledger: jobrota.JobLedger, thread: int = 0) -> None:
        """One of the threads of a process, which share the ledger."""
        self.who = f"{work.who}.{thread}"
        self.random = random.Random(f"{work.seed}/{self.who}")
        self.record = recorder
        self.ledger = ledger
        self.weights = WEIGHTS | work.weights
        self.first = list(work.first)
        self.work = work
        self.round = 0
        self.logged = 0

    def act(self) -> None:
        """Does one action."""
        drawn = self.random.choices(list(self.weights), list(self.weights.values()))
        name = self.first.pop(0) if self.first else drawn[0]
        action: Callable[[], None] = getattr(self, name)
        action()
        self.round += 1

    def some_table(self) -> str:
        return self.random.choice(TABLES)

    def some_job(self) -> str:
        return f"JOB_{self.round // ROUNDS_PER_JOB}_{self.random.randrange(JOBS)}"

    def new_row(self, flag: str = NO) -> Row:
        """A row that no other call logs; half of them with a time, of which some are the same."""
        self.logged += 1
        time = None
        if self.random.random() < 0.5:
            time = micros(datetime.now(timezone.utc) - timedelta(milliseconds=self.random.randrange(200)))
            assert time is not None
            time -= time % 5_000
        return Row("history.sas", self.some_job(), f"SUCCESS {self.who}/{self.logged}", flag, time)

    def log(self, table: str, row: Row) -> None:
        """Logs one row."""
        one = self.ledger.log_job_completion if table == NOTIFICATIONS else self.ledger.log_job_execution
        when: dict[str, Any] = {} if row.time is None else {TIME_OF[table]: moment(row.time)}
        names = (str(row.file), str(row.job), str(row.status))
        self.record.call("log", table, lambda: one(*names, **when), given=[row], wrote_nothing=wrote_nothing)

    def log_one(self) -> None:
        self.log(self.some_table(), self.new_row())

    def log_both(self) -> None:
        """The rows that a delivery or an operator settles together."""
        row = self.new_row()
        for table in (EXECUTIONS, NOTIFICATIONS):
            self.log(table, row)

    def log_many(self) -> None:
        """Some of the rows are identical."""
        table, rows = self.some_table(), list[Row]()
        for _ in range(self.random.randrange(1, 5)):
            row = self.new_row(self.random.choice([NO, NO, NO, YES]))._replace(time=None)
            row = row._replace(time=micros(datetime.now(timezone.utc)))
            rows += [row] * self.random.choice([1, 1, 2, 3])
        many = self.ledger.log_notifications if table == NOTIFICATIONS else self.ledger.log_executions
        given = arrow(table, rows)
        self.record.call("log", table, lambda: many(given), given=rows, wrote_nothing=wrote_nothing)

    def oldest(self, table: str, limit: int | None) -> Any:
        """Reads what is pending."""
        of = self.ledger.pending_notifications if table == NOTIFICATIONS else self.ledger.pending_executions
        return self.record.call("oldest", table, lambda: of(limit=limit), limit=limit, result=rows_of)

    def read_oldest(self) -> None:
        self.oldest(self.some_table(), self.random.choice([1, 5, 20, None]))

    def chosen(self, table: str) -> list[Row]:
        """Pending rows to acknowledge: some of the oldest, sometimes more copies of a row than there are."""
        rows = rows_of(self.oldest(table, self.random.choice([4, 8, 12, 30])))
        rows = self.random.sample(rows, self.random.randint(min(1, len(rows)), len(rows)))
        if rows and self.random.random() < 0.2:
            rows.append(rows[0])
        return rows

    def acknowledge(self) -> None:
        """Sometimes twice."""
        table = self.some_table()
        rows = self.chosen(table)
        given = arrow(table, rows)
        for _ in range(1 if self.random.random() < 0.8 else 2):
            self.record.call(
                "acknowledge",
                table,
                lambda: self.ledger.acknowledge(given, table=table),  # type: ignore[arg-type]
                given=rows,
                result=int,
                wrote_nothing=wrote_nothing,
            )

    def update(self) -> None:
        """As the legacy UPDATE."""
        file, job = "history.sas", self.some_job()
        self.record.call(
            "update",
            EXECUTIONS,
            lambda: self.ledger.update_autosys_flag(file, job),
            where={"file": file, "job": job},
            result=int,
            wrote_nothing=wrote_nothing,
        )

    def settle(self) -> None:
        """An operator's action; it needs the lease, which others can hold."""
        rows = self.chosen(NOTIFICATIONS)
        given = arrow(NOTIFICATIONS, rows)
        try:
            self.record.call(
                "settle by hand",
                NOTIFICATIONS,
                lambda: self.ledger.settle_by_hand(given, reason="history", delivered=True),
                given=rows,
                result=int,
            )
        except jobrota.errors.ConflictError:
            # Also when another got the lease between two commits of this one: what it wrote is not known.
            return

    def read_job(self) -> None:
        table, job, flag = self.some_table(), self.some_job(), self.random.choice([NO, YES, None])
        of = self.ledger.notifications if table == NOTIFICATIONS else self.ledger.executions
        where = {"job": job} | ({} if flag is None else {"flag": flag})
        self.record.call("rows", table, lambda: of(job_id=job, flag=flag), where=where, result=rows_of)

    def read_all(self, table: str | None = None) -> None:
        flag = None if table else self.random.choice([YES, None])
        table = table or self.some_table()
        of = self.ledger.notifications if table == NOTIFICATIONS else self.ledger.executions
        where = {} if flag is None else {"flag": flag}
        self.record.call("digest", table, lambda: of(flag=flag), where=where, result=digest)

    def count(self) -> None:
        self.record.call("counts", "both", self.ledger.summary, result=counts)

    def maintain(self) -> None:
        """Compacts, writes checkpoints and vacuums."""
        for table in TABLES if self.work.kept else ():
            keep(Path(self.work.root, table), Path(self.work.kept))
        self.record.call(
            "maintain", "all", lambda: self.ledger.maintain(retain_hours=self.work.retain), result=problems
        )


def moment(time: int) -> datetime:
    """A time from its microseconds."""
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=time)


def arrow(table: str, rows: list[Row]) -> pa.Table:
    """Rows as Arrow data with the names of the table's columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(Row._fields)
    named = dict(zip(("file_name", "job_id", "status", "autosys_update_flag"), columns, strict=False))
    text = {name: pa.array(values, pa.string()) for name, values in named.items()}
    return pa.table(text | {TIME_OF[table]: pa.array(columns[-1], pa.timestamp("us", "UTC"))})


def digest(table: Any) -> Any:
    """What is recorded of a read of all rows."""
    return digest_of(rows_of(table))


def counts(summary: Any) -> dict[str, Any]:
    """What is recorded of a summary."""
    found = {}
    for table, of in ((NOTIFICATIONS, summary.notifications), (EXECUTIONS, summary.executions)):
        found[table] = {name: of[name] for name in ("rows", "pending", "acknowledged")}
        found[table]["oldest"] = micros(of["oldest_pending"])
    return found


def problems(report: Any) -> list[str]:
    """What maintenance says that it could not do."""
    return [str(problem) for problem in report.problems]


def run(work: Work, started: Connection | None = None) -> None:
    """Works; says so after the first action of each thread."""
    os.environ.update(work.environment)
    recorder = Recorder(work.recording, work.who)
    ledger = jobrota.JobLedger(work.root, storage_options=work.options)
    failed: list[BaseException] = []

    def go(thread: int) -> None:
        try:
            worker = Worker(work, recorder, ledger, thread)
            ends = time.monotonic() + work.seconds
            while time.monotonic() < ends if work.seconds else worker.round < work.rounds:
                worker.act()
                if work.until and Path(work.until).exists():
                    break
                if work.pause:
                    time.sleep(worker.random.uniform(0, work.pause))
                if started is not None and worker.round == 1:
                    started.send_bytes(b".")
        except BaseException as error:
            failed.append(error)
            raise

    others = [threading.Thread(target=go, args=(number,), daemon=True) for number in range(1, work.threads)]
    for thread in others:
        thread.start()
    go(0)
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]
