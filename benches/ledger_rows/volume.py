"""Fetching and acknowledging 100 pending rows of many, and the same SQL with Spark."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import jobrota

from .common import CONTEXT, Deltalake, Result, Samples, Scale, log_one, logged_before, rows_of, side_by_side, times

PENDING = 100
BETWEEN = 5
BATCHES = 10


def filled(root: Path, rows: int) -> jobrota.JobLedger:
    """A ledger of `rows` acknowledged notifications, and 100 pending ones that came one by one."""
    ledger = jobrota.JobLedger(root)
    for batch in range(BATCHES):
        ledger.log_notifications(rows_of(rows // BATCHES, "YES", first=batch * rows // BATCHES))
    logged_before(ledger, PENDING)
    return ledger


def todays(path: Path, rows: int) -> Deltalake:
    """The same rows, in the same commits, in an unpartitioned table that deltalake has written."""
    table = Deltalake(path, partitioned=False)
    for batch in range(BATCHES):
        table.append(rows_of(rows // BATCHES, "YES", first=batch * rows // BATCHES))
    for _ in range(PENDING):
        table.append()
    return table


def lines(
    what: str, mine: Samples, small: Samples, other: Samples, rival: str, most: float, ours: str = "ours of 10,000"
) -> Iterator[Result]:
    """Both comparisons of one measurement."""
    ratio = mine.p50 / small.p50
    target = f"≤ {most:g} times"
    yield Result(f"{what}, against {ours}", str(mine), str(small), times(ratio), target, ratio <= most)
    ratio = other.p50 / mine.p50
    yield Result(f"{what}, against {rival}", str(mine), str(other), times(ratio), "≥ 20 times", ratio >= 20)


def fetch(folder: Path, scale: Scale) -> Iterator[Result]:
    """The pending rows: as they came, one commit each, and after both sides have compacted."""
    small, large = filled(folder / "small", 10_000), filled(folder / "large", scale.rows)
    theirs = todays(folder / "theirs", scale.rows)
    for state in ("in files of their own", "compacted by either side"):
        if state.startswith("compacted"):
            small.maintain()
            large.maintain()
            theirs.compact()
        assert large.pending_notifications().num_rows == theirs.pending().num_rows == PENDING
        few, many, other = side_by_side(
            max(5, scale.samples // 4),
            small.pending_notifications,
            large.pending_notifications,
            theirs.pending,
            warm=1,
        )
        what = f"fetch {PENDING} pending of {scale.rows:,}, {state}"
        yield from lines(what, many, few, other, "deltalake on an unpartitioned table", 1.5)


def acknowledge(folder: Path, scale: Scale) -> Iterator[Result]:
    """Setting 100 pending rows to YES, in the same two states."""
    count = max(5, scale.samples // 6)
    small, large = filled(folder / "small", 10_000), filled(folder / "large", scale.rows)
    original = todays(folder / "original", scale.rows)
    for state in ("in files of their own", "compacted by either side"):
        compacted = state.startswith("compacted")
        if compacted:
            original.compact()
        few, many, other = Samples(), Samples(), Samples()
        for _ in range(count):
            for ledger, samples in ((small, few), (large, many)):
                if compacted:
                    ledger.maintain()
                pending = ledger.pending_notifications()
                assert pending.num_rows == PENDING
                samples.take(partial(ledger.acknowledge, pending))
                logged_before(ledger, PENDING)
        for number in range(max(3, count // 2)):
            # Each update changes the table: it is done to a copy.
            copy = folder / f"copy-{number}"
            shutil.copytree(folder / "original", copy)
            other.take(Deltalake(copy).acknowledge)
            assert Deltalake(copy).pending().num_rows == 0
            shutil.rmtree(copy)
        what = f"acknowledge {PENDING} of {scale.rows:,}, {state}"
        yield from lines(what, many, few, other, "DeltaTable.update on an unpartitioned table", 2)
        if not compacted:
            meanwhile = after_other_process(large, count)
            what = f"{what}, when another process has logged {BETWEEN} rows since they were read"
            rival = "DeltaTable.update on an unpartitioned table"
            yield from lines(what, meanwhile, many, other, rival, 2, ours="without these rows")


def after_other_process(ledger: jobrota.JobLedger, count: int) -> Samples:
    """Acknowledging `PENDING` rows that were read before another process logged more."""
    samples = Samples()
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=log_on_request, args=(ledger.root, theirs))
    process.start()
    for _ in range(count):
        pending = ledger.pending_notifications()
        assert pending.num_rows == PENDING
        ours.send(BETWEEN)
        ours.recv()
        samples.take(partial(ledger.acknowledge, pending))
        ledger.acknowledge(ledger.pending_notifications())
        logged_before(ledger, PENDING)
    ours.send(0)
    process.join()
    return samples


def log_on_request(root: str, requests: Connection) -> None:
    """Logs as many rows as each request says, until one says none."""
    ledger = jobrota.JobLedger(root)
    while rows := requests.recv():
        logged_before(ledger, rows)
        requests.send(rows)


def spark(folder: Path, scale: Scale) -> Iterator[Result]:
    """One row by Spark's INSERT and UPDATE in a warm local session."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    import spark_session

    missing = spark_session.missing()
    if missing:
        raise RuntimeError(missing)
    session = spark_session.start(folder / "scratch", short_lived=False)
    table = f"delta.`{folder / 'theirs'}`"
    session.sql(
        f"CREATE TABLE {table} (file_name STRING, job_id STRING, status STRING, autosys_update_flag STRING, "
        "notification_timestamp TIMESTAMP) USING delta PARTITIONED BY (autosys_update_flag)"
    )
    ledger = jobrota.JobLedger(folder / "ours")
    logged_before(ledger, 10)

    def insert() -> object:
        return session.sql(f"INSERT INTO {table} VALUES ('bench.sas', 'BENCH', 'SUCCESS', 'NO', current_timestamp())")

    def update() -> object:
        return session.sql(
            f"UPDATE {table} SET autosys_update_flag = 'YES' "
            "WHERE file_name = 'bench.sas' AND job_id = 'BENCH' AND autosys_update_flag = 'NO'"
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
        # In turns of several calls: the first ones find the processor's caches full of Spark's work.
        for call in range(6):
            (logged if call > 2 else Samples()).take(log_one(ledger))
        pending = ledger.pending_notifications(limit=1)
        acknowledged.take(partial(ledger.acknowledge, pending))
    session.stop()
    for what, mine, other in (
        ("log one row, against Spark's INSERT", logged, inserted),
        ("acknowledge one row, against Spark's UPDATE", acknowledged, updated),
    ):
        ratio = other.p50 / mine.p50
        yield Result(f"{what}, warm local session", str(mine), str(other), times(ratio), "≥ 100 times", ratio >= 100)
