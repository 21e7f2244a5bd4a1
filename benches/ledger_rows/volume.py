"""Fetching and acknowledging 100 pending rows of many, and the same SQL as Spark runs it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jobrota

from .common import Deltalake, Result, Samples, Scale, log_one, logged_before, rows_of, side_by_side, times

PENDING = 100
BATCHES = 10


def filled(root: Path, rows: int) -> jobrota.JobLedger:
    """A ledger of `rows` acknowledged notifications, and 100 pending ones that came one by one."""
    ledger = jobrota.JobLedger(root)
    for batch in range(BATCHES):
        ledger.log_notifications(rows_of(rows // BATCHES, "YES", first=batch * rows // BATCHES))
    logged_before(ledger, PENDING)
    return ledger


def scattered(path: Path, rows: int) -> Deltalake:
    """Today's table: unpartitioned, and the pending rows lie among the others, as compacting leaves them."""
    table = Deltalake(path, partitioned=False)
    for batch in range(BATCHES):
        each = rows // BATCHES
        table.append(rows_of(each, "YES", first=batch * each, pending=PENDING // BATCHES))
    return table


def fetch(folder: Path, scale: Scale) -> Iterator[Result]:
    """The pending rows."""
    small, large = filled(folder / "small", 10_000), filled(folder / "large", scale.rows)
    theirs = scattered(folder / "theirs", scale.rows)
    tail = Deltalake(folder / "tail", partitioned=False)
    for batch in range(BATCHES):
        tail.append(rows_of(scale.rows // BATCHES, "YES", first=batch * scale.rows // BATCHES))
    for _ in range(PENDING):
        tail.append()
    works: list[Callable[[], object]] = [
        small.pending_notifications,
        large.pending_notifications,
        theirs.pending,
        tail.pending,
    ]
    assert large.pending_notifications().num_rows == theirs.pending().num_rows == tail.pending().num_rows == PENDING
    few, many, other, fresh = side_by_side(max(5, scale.samples // 4), *works, warm=1)
    cold = Samples()
    for _ in range(max(5, scale.samples // 4)):
        cold.take(lambda: jobrota.JobLedger(folder / "large").pending_notifications())
    what = f"fetch {PENDING} pending of {scale.rows:,}"
    ratio = many.p50 / few.p50
    yield Result(f"{what}, against ours of 10,000", str(many), str(few), times(ratio), "≤ 1.5 times", ratio <= 1.5)
    ratio = other.p50 / many.p50
    yield Result(
        f"{what}, against deltalake on an unpartitioned table",
        str(many),
        str(other),
        times(ratio),
        "≥ 20 times",
        ratio >= 20,
    )
    yield Result(
        f"{what}, both opened anew for each call, against deltalake with the pending rows in files of their own",
        str(cold),
        str(fresh),
        times(fresh.p50 / cold.p50),
    )


def acknowledge(folder: Path, scale: Scale) -> Iterator[Result]:
    """Setting 100 pending rows to YES."""
    count = max(5, scale.samples // 6)
    results = {}
    for rows in (10_000, scale.rows):
        ledger = filled(folder / f"ours-{rows}", rows)
        samples = Samples()
        for number in range(count + 1):
            if number:
                logged_before(ledger, PENDING)
            pending = ledger.pending_notifications()
            assert pending.num_rows == PENDING
            samples.take(lambda ledger=ledger, pending=pending: ledger.acknowledge(pending))  # type: ignore[misc]
            assert ledger.pending_notifications().num_rows == 0
        samples.values.pop(0)
        results[rows] = samples
    small, large = results[10_000], results[scale.rows]
    original = folder / "original"
    scattered(original, scale.rows)
    other = Samples()
    for number in range(max(3, count // 2)):
        # Each update changes the table: it is done to a copy.
        shutil.copytree(original, folder / f"copy-{number}")
        copy = Deltalake(folder / f"copy-{number}")
        other.take(copy.acknowledge)
        assert copy.pending().num_rows == 0
        shutil.rmtree(folder / f"copy-{number}")
    what = f"acknowledge {PENDING} of {scale.rows:,}"
    ratio = large.p50 / small.p50
    yield Result(f"{what}, against ours of 10,000", str(large), str(small), times(ratio), "≤ 2 times", ratio <= 2)
    ratio = other.p50 / large.p50
    yield Result(
        f"{what}, against DeltaTable.update on an unpartitioned table",
        str(large),
        str(other),
        times(ratio),
        "≥ 20 times",
        ratio >= 20,
    )


def spark(folder: Path, scale: Scale) -> Iterator[Result]:
    """One row by Spark's INSERT and UPDATE in a warm local session."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    import spark_session

    missing = spark_session.missing()
    if missing:
        raise RuntimeError(missing)
    session = spark_session.start(folder / "scratch")
    table = f"delta.`{folder / 'theirs'}`"
    session.sql(
        f"CREATE TABLE {table} (file_name STRING, job_id STRING, status STRING, autosys_update_flag STRING, "
        "notification_timestamp TIMESTAMP) USING delta"
    )
    ledger = jobrota.JobLedger(folder / "ours")
    logged_before(ledger, 10)

    def insert() -> object:
        return session.sql(f"INSERT INTO {table} VALUES ('bench.sas', 'BENCH', 'SUCCESS', 'NO', current_timestamp())")

    def update() -> object:
        return session.sql(
            f"UPDATE {table} SET autosys_update_flag = 'YES' WHERE file_name = 'bench.sas' AND autosys_update_flag = 'NO'"
        ).collect()

    count = max(5, scale.samples // 6)
    logged, acknowledged, inserted, updated = Samples(), Samples(), Samples(), Samples()
    ledger.acknowledge(ledger.pending_notifications())
    for number in range(count + 5):
        if number == 5:
            # The first rounds warm the session up.
            logged, acknowledged, inserted, updated = Samples(), Samples(), Samples(), Samples()
        inserted.take(insert)
        updated.take(update)
        logged.take(log_one(ledger))
        pending = ledger.pending_notifications()
        acknowledged.take(lambda pending=pending: ledger.acknowledge(pending))  # type: ignore[misc]
    session.stop()
    for what, mine, other in (
        ("log one row, against Spark's INSERT", logged, inserted),
        ("acknowledge one row, against Spark's UPDATE", acknowledged, updated),
    ):
        ratio = other.p50 / mine.p50
        yield Result(f"{what}, warm local session", str(mine), str(other), times(ratio), "≥ 100 times", ratio >= 100)
