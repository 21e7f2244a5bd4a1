"""Prints the figures of delivering to AutoSys, all measured in this run: `make bench`."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

import jobrota
from jobrota.autosys import Rehearsal
from ledger_rows.common import QUICK, Result, Scale
from report import measure

CHILD = Path(__file__).parent.parent / "tests" / "delivery_child.py"
ANSWER_AFTER = 0.005
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def rows(numbers: range, jobs: int, begun: datetime, flag: str = "NO") -> pa.Table:
    """Notifications whose file names are their numbers, a millisecond apart, spread over so many jobs."""
    micros = [int(begun.timestamp() * 1e6) + number * 1000 for number in numbers]
    return pa.table(
        {
            "file_name": [str(number) for number in numbers],
            "job_id": [f"J{number % jobs}" for number in numbers],
            "status": ["SUCCESS"] * len(numbers),
            "autosys_update_flag": [flag] * len(numbers),
            "notification_timestamp": pa.array(micros, pa.timestamp("us", "UTC")),
        }
    )


def take_slowly(file_name: str, job_id: str, status: str) -> bool:
    """Takes everything, after 5 ms."""
    time.sleep(ANSWER_AFTER)
    return True


def steady(folder: Path, scale: Scale) -> Iterator[Result]:
    """Many rows, a transport that takes its time, many at a time."""
    pending, concurrency = (20_000 if (scale is QUICK) else 100_000), 64
    ledger = jobrota.JobLedger(folder / "ledger")
    ledger.log_notifications(rows(range(pending), 20_000, NOW))
    start = time.perf_counter()
    report = jobrota.AutosysUpdater(ledger, Rehearsal(answer_after=ANSWER_AFTER), concurrency=concurrency).run()
    whole = time.perf_counter() - start
    if report.delivered != pending or ledger.pending_notifications(limit=1).num_rows:
        raise RuntimeError(f"not everything was delivered: {report}")
    deliveries = pa.table(ledger.deliveries())
    delivered = deliveries.filter(pc.equal(deliveries["outcome"], "delivered"))
    # Steady state: without the first and the last tenth, as the answers came.
    times = sorted(delivered["attempted_at"].cast(pa.int64()).to_pylist())
    middle = times[pending // 10 : pending * 9 // 10]
    rate = len(middle) / ((middle[-1] - middle[0]) / 1e6)
    bound = concurrency / ANSWER_AFTER
    yield Result(
        f"{pending:,} pending, built-in transport answering in 5 ms, concurrency {concurrency}, steady state",
        f"{rate:,.0f} rows/s (all of it: {pending / whole:,.0f})",
        f"{bound:,.0f} rows/s, the bound",
        f"{rate / bound:.2f}",
        "≥ 0.70 of the bound",
        rate / bound >= 0.7,
    )


def callables(folder: Path, scale: Scale) -> Iterator[Result]:
    """A blocking function, beside a bare pool of threads, and beside today's loop."""
    pending, concurrency = (1_000 if (scale is QUICK) else 10_000), 32
    with ThreadPoolExecutor(concurrency) as pool:
        start = time.perf_counter()
        list(pool.map(lambda _: take_slowly("a.sas", "A", "SUCCESS"), range(pending)))
        bare = pending / (time.perf_counter() - start)
    ledger = jobrota.JobLedger(folder / "ledger")
    table = rows(range(pending), pending // 5, NOW)
    ledger.log_notifications(table)
    updater = jobrota.AutosysUpdater(ledger, take_slowly, concurrency=concurrency, thread_safe=True)
    start = time.perf_counter()
    report = updater.run()
    ours = pending / (time.perf_counter() - start)
    if report.delivered != pending:
        raise RuntimeError(f"not everything was delivered: {report}")
    yield Result(
        f"{pending:,} pending, blocking callable of 5 ms, {concurrency} threads, against a bare pool of threads",
        f"{ours:,.0f} rows/s",
        f"{bare:,.0f} rows/s",
        f"{ours / bare:.2f}",
        "≥ 0.85",
        ours / bare >= 0.85,
    )
    write_deltalake(folder / "today", table)
    today, sample = str(folder / "today"), 20
    start = time.perf_counter()
    for number in range(sample):
        take_slowly("a.sas", "A", "SUCCESS")
        DeltaTable(today).update(
            updates={"autosys_update_flag": "'YES'"}, predicate=f"file_name = '{number}' AND job_id = 'J{number}'"
        )
    loop = sample / (time.perf_counter() - start)
    yield Result(
        f"the same against today's loop (one send, one UPDATE per row, deltalake; {sample} rows)",
        f"{ours:,.0f} rows/s",
        f"{loop:,.1f} rows/s",
        f"{ours / loop:,.0f}",
        "≥ 50 times",
        ours / loop >= 50,
    )


def cycles(ledger: jobrota.JobLedger, refused: str, count: int) -> list[float]:
    """Milliseconds of cycles with 100 pending rows each; the job `refused` fails in each."""

    def send(file_name: str, job_id: str, status: str) -> bool:
        return job_id != refused

    taken = []
    for number in range(count):
        ledger.log_notifications(rows(range(100), 100, NOW + timedelta(seconds=number)))
        updater = jobrota.AutosysUpdater(ledger, send, thread_safe=True)
        start = time.perf_counter()
        report = updater.run()
        taken.append((time.perf_counter() - start) * 1000)
        if report.delivered != 100:
            raise RuntimeError(f"not everything was delivered: {report}")
    return taken


def history(folder: Path, scale: Scale) -> Iterator[Result]:
    """A cycle on a ledger with a long history and a row that has been failing for a year."""
    delivered, year = (100_000 if (scale is QUICK) else 1_000_000), NOW - timedelta(days=365)
    old = jobrota.JobLedger(folder / "old")
    old.log_notifications(rows(range(1), 1, year).set_column(1, "job_id", [["STUCK"]]))
    refuse = jobrota.AutosysUpdater(old, lambda file_name, job_id, status: False)
    for number in range(20):
        part = range(number * delivered // 20, (number + 1) * delivered // 20)
        begun = year + timedelta(days=18 * number)
        table = rows(part, 5_000, begun, "YES")
        old.log_notifications(table)
        attempts(folder / "old" / "autosys_deliveries", table, old, refuse)
    old.maintain()
    new = jobrota.JobLedger(folder / "new")
    new.log_notifications(rows(range(1), 1, NOW - timedelta(minutes=1)).set_column(1, "job_id", [["STUCK"]]))
    count = 5 if (scale is QUICK) else 15
    cycles(new, "STUCK", 2)
    cycles(old, "STUCK", 2)
    for ledger in (new, old):
        ledger.maintain()
    fresh, aged = cycles(new, "STUCK", count), cycles(old, "STUCK", count)
    ratio = statistics.median(aged) / statistics.median(fresh)
    yield Result(
        f"cycle with 100 pending, {delivered:,} delivered rows with their attempts, one row failing for a year,"
        " against a new ledger",
        f"{statistics.median(aged):.1f} / {max(aged):.1f} ms",
        f"{statistics.median(fresh):.1f} / {max(fresh):.1f} ms",
        f"{ratio:.2f}",
        "≤ 1.5 times",
        ratio <= 1.5,
    )


def attempts(path: Path, table: pa.Table, ledger: jobrota.JobLedger, refuse: jobrota.AutosysUpdater) -> None:
    """What delivering these rows leaves in the table of attempts, and some failures of the row that is stuck."""
    for _ in range(5):
        refuse.run()
    schema = pa.schema(DeltaTable(path).schema().to_arrow())
    both = pa.concat_tables([table, table])
    count = table.num_rows
    columns: dict[str, Any] = {
        "table_name": ["job_notifications"] * 2 * count,
        "file_name": both["file_name"],
        "job_id": both["job_id"],
        "status": both["status"],
        "row_timestamp": both["notification_timestamp"],
        "attempt": [1] * 2 * count,
        "outcome": ["sending"] * count + ["delivered"] * count,
        "detail": [None] * 2 * count,
        "transport": ["sendevent"] * 2 * count,
        "vm": [None] * 2 * count,
        "delivered_by": ["bench:1"] * 2 * count,
        "attempted_at": both["notification_timestamp"],
    }
    write_deltalake(path, pa.table(columns).cast(schema), mode="append")


def kills(folder: Path, scale: Scale) -> Iterator[Result]:
    """Two updaters at a time, one or the other killed again and again."""
    pending, jobs, wanted, window = (2_000 if (scale is QUICK) else 20_000), 200, (20 if (scale is QUICK) else 200), 128
    chance = random.Random(5)
    ledger, sent = jobrota.JobLedger(folder / "ledger"), folder / "sent.txt"
    ledger.log_notifications(rows(range(pending), jobs, NOW))

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(CHILD), str(folder / "ledger"), str(sent), "0.5", "0.03"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()  # type: ignore[union-attr]
        return child

    children, killed, late = [start(), start()], 0, 0
    while killed < wanted:
        at = chance.randrange(2)
        try:
            children[at].wait(timeout=chance.uniform(0.0, 0.6))
        except subprocess.TimeoutExpired:
            children[at].kill()
            killed += 1
        children[at].communicate()
        if not ledger.pending_notifications(limit=1).num_rows:
            # Delivered before the last kill: so many more, that every kill meets something to do.
            ledger.log_notifications(rows(range(pending + late, pending + late + 2_000), jobs, NOW))
            late += 2_000
        children[at] = start()
    for child in children:
        child.communicate()
    lines = [line.split() for line in sent.read_text().splitlines()]
    times = Counter(int(number) for _, number in lines)
    missing = pending + late - len(times)
    repeats = sum(times.values()) - len(times)
    details = pa.table(ledger.deliveries())["detail"].to_pylist()
    marked = sum("sent again" in (detail or "") for detail in details)
    newest: dict[str, int] = {}
    disorder = 0
    for job, number in lines:
        disorder += int(number) < newest.get(job, -1)
        newest[job] = max(int(number), newest.get(job, -1))
    left = ledger.pending_notifications().num_rows
    yield Result(
        f"{killed} SIGKILLs over {pending + late:,} rows, two updaters overlapping",
        f"{missing} missing, {left} left, {disorder} out of order, {repeats} repeats, {marked} marked",
        "",
        f"{repeats / killed:.1f} repeats a kill",
        f"0 missing, 0 out of order, ≤ {window} repeats a kill, all marked",
        missing == left == disorder == 0 and repeats <= marked and repeats <= killed * window,
    )


def away(folder: Path, scale: Scale) -> Iterator[Result]:
    """AutoSys away for 500 cycles, and back."""
    count = 50 if (scale is QUICK) else 500
    ledger = jobrota.JobLedger(folder / "ledger")
    ledger.log_notifications(rows(range(300), 30, NOW))
    gone = jobrota.AutosysUpdater(ledger, lambda file_name, job_id, status: False)
    start = time.perf_counter()
    for _ in range(count):
        if gone.run().pending != 300:
            raise RuntimeError("rows were lost while AutoSys was away")
    each = (time.perf_counter() - start) / count * 1000
    sent: list[tuple[str, int]] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append((job_id, int(file_name)))
        return True

    jobrota.AutosysUpdater(ledger, send).run()
    newest: dict[str, int] = {}
    disorder = 0
    for job, number in sent:
        disorder += number < newest.get(job, -1)
        newest[job] = number
    lost = 300 - len(set(sent))
    yield Result(
        f"AutoSys away for {count} cycles, 300 pending rows of 30 jobs",
        f"{lost} lost, {disorder} out of order, {len(sent) - len(set(sent))} doubled; {each:.1f} ms a cycle",
        "",
        "",
        "0 lost, 0 out of order",
        lost == disorder == 0,
    )


if __name__ == "__main__":
    ROWS = {
        "steady": steady,
        "callable": callables,
        "history": history,
        "kills": kills,
        "away": away,
    }
    sys.exit(measure("Delivering to AutoSys", __doc__, ROWS, ("jobrota", "deltalake", "pyarrow")))
