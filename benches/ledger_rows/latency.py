"""One caller, and many threads of one process."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jobrota

from .common import (
    Deltalake,
    Result,
    Scale,
    log_one,
    logged_before,
    rows_of,
    side_by_side,
    times,
)


def single(folder: Path, scale: Scale) -> Iterator[Result]:
    """One caller at 200 earlier commits, against write_deltalake."""
    ours = jobrota.JobLedger(folder / "ours")
    synced = jobrota.JobLedger(folder / "synced", durability="fsync")
    theirs = Deltalake(folder / "theirs", partitioned=True)
    logged_before(ours, 200)
    logged_before(synced, 200)
    for _ in range(200):
        theirs.append()
    mine, fsync, other = side_by_side(scale.samples, log_one(ours), log_one(synced), theirs.append)
    ratio = other.p50 / mine.p50
    yield Result(
        "one row, one caller, 200 earlier commits, against write_deltalake",
        str(mine),
        str(other),
        times(ratio),
        "≥ 25 times",
        ratio >= 25,
    )
    ratio = other.p50 / fsync.p50
    yield Result('the same with durability="fsync"', str(fsync), str(other), times(ratio), "≥ 25 times", ratio >= 25)


def history(folder: Path, scale: Scale) -> Iterator[Result]:
    """The same after thousands of commits, while maintenance runs."""
    ours = jobrota.JobLedger(folder / "long")
    fresh = jobrota.JobLedger(folder / "fresh")
    logged_before(fresh, 50)
    while True:
        logged_before(ours, scale.history // 10)
        ours.maintain()
        if commits(folder / "long") >= scale.history:
            break
    # Maintenance goes on while both are measured, so that it slows both alike.
    done = threading.Event()
    rounds = 0

    def maintenance() -> None:
        nonlocal rounds
        while not done.is_set():
            ours.maintain()
            rounds += 1
            done.wait(0.2)

    thread = threading.Thread(target=maintenance)
    thread.start()
    try:
        short, long = side_by_side(scale.samples * 5, log_one(fresh), log_one(ours))
    finally:
        done.set()
        thread.join()
    ratio = long.p50 / short.p50
    yield Result(
        f"one row, one caller, {scale.history:,} earlier commits, maintain() run {rounds} times meanwhile, against 50",
        str(long),
        str(short),
        times(ratio),
        "≤ 1.5 times",
        ratio <= 1.5,
    )


def commits(root: Path) -> int:
    """The newest version of the notifications, by the names in the log."""
    log = root / "job_notifications" / "_delta_log"
    return max(int(entry.name[:20]) for entry in log.iterdir() if entry.name[:20].isdigit())


def rate(ledger: jobrota.JobLedger, threads: int, seconds: float) -> tuple[float, float]:
    """Rows per second of `threads` callers that log single rows, and microseconds of processor time per row.

    A row counts when its call has returned. Other load on the machine changes the processor time little.
    """
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    stop = threading.Event()

    def work(number: int) -> None:
        log = log_one(ledger)
        start.wait()
        while not stop.is_set():
            log()
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begun, used = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    spent, used = time.perf_counter() - begun, time.process_time() - used
    return sum(counts) / spent, used * 1e6 / max(1, sum(counts))


def threads(folder: Path, scale: Scale) -> Iterator[Result]:
    """64 threads at 200 earlier commits."""
    ours, by_one = jobrota.JobLedger(folder / "ours"), jobrota.JobLedger(folder / "alone")
    for ledger in (ours, by_one):
        logged_before(ledger, 200)
    alone, alone_each = rate(by_one, 1, min(scale.seconds, 1))
    many, many_each = rate(ours, 64, min(scale.seconds, 1))
    yield Result(
        "64 threads, single rows, 200 earlier commits, against one thread",
        f"{many:,.0f} rows/s ({many_each:,.0f} µs of processor time each)",
        f"{alone:,.0f} rows/s ({alone_each:,.0f} µs)",
        times(many / alone),
        "≥ 25 times",
        many / alone >= 25,
    )


def delay(folder: Path, scale: Scale) -> Iterator[Result]:
    """A store of which each request takes 50 ms more."""
    root = folder / "far"
    logged_before(jobrota.JobLedger(root), 20)
    far = jobrota.JobLedger(root, storage_options={"request_delay": "0.05"})
    (append,) = side_by_side(max(10, scale.samples // 3), log_one(far))
    trips = append.p50 / 50
    yield Result(
        "store with 50 ms per request: one row, warm",
        f"{append} = {trips:.2f} round trips",
        target="≤ 2.3 round trips",
        met=trips <= 2.3,
    )
    many, _ = rate(far, 64, scale.seconds)
    yield Result(
        "store with 50 ms per request: 64 threads",
        f"{many:,.0f} rows/s",
        target="≥ 400 rows/s",
        met=many >= 400,
    )
    counts = {}
    for acknowledged in (100, scale.history // 5):
        root = folder / f"history-{acknowledged}"
        writer = jobrota.JobLedger(root)
        logged_before(writer, acknowledged)
        writer.acknowledge(writer.pending_notifications())
        writer.log_notifications(rows_of(100, "NO"))
        writer.maintain()
        reader = jobrota.JobLedger(root)
        before = sum(reader.requests.values())
        assert reader.pending_notifications().num_rows == 100
        counts[acknowledged] = sum(reader.requests.values()) - before
    few, lots = counts.values()
    yield Result(
        f"requests of a first fetch of 100 pending after {max(counts):,} acknowledged rows, against {min(counts):,}",
        f"{lots} requests",
        f"{few} requests",
        times(lots / few),
        "no more (± 2)",
        abs(lots - few) <= 2,
    )


def raw(folder: Path, scale: Scale) -> Iterator[Result]:
    """The same bytes written with plain file calls: what nothing that makes these two files can beat."""
    ours = jobrota.JobLedger(folder / "ours")
    synced = jobrota.JobLedger(folder / "synced", durability="fsync")
    logged_before(ours, 200)
    logged_before(synced, 200)
    table = folder / "ours" / "job_notifications"
    entry = (table / "_delta_log" / f"{150:020}.json").read_bytes()
    data = next((table / "autosys_update_flag=NO").glob("*.parquet")).read_bytes()

    def write(path: Path, content: bytes, sync: bool) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, content)
        if sync:
            os.fsync(descriptor)
        os.close(descriptor)

    def plain(name: str, *, sync: bool) -> Callable[[], None]:
        target = folder / name
        target.mkdir()
        directory = os.open(target, os.O_RDONLY)
        numbers = itertools.count()

        def write_both() -> None:
            number = next(numbers)
            write(target / f"{number}.parquet", data, sync)
            # A log entry has to appear whole and only once: written under another name, linked, and that name removed.
            write(target / f"{number}.tmp", entry, sync)
            os.link(target / f"{number}.tmp", target / f"{number}.json")
            if sync:
                os.fsync(directory)
            os.unlink(target / f"{number}.tmp")  # noqa: PTH108 - as plain as it can be

        return write_both

    works = (log_one(ours), plain("plain", sync=False), log_one(synced), plain("fsync", sync=True))
    mine, files, fsync, synced_files = side_by_side(scale.samples * 3, *works)
    size = f"{len(data):,} + {len(entry):,} bytes"
    name, ratio = f"raw limit: the same {size} written with plain file calls", mine.p50 / files.p50
    yield Result(name, str(mine), str(files), f"{times(ratio)} times the raw calls", "≤ 1.4 times", ratio <= 1.4)
    name = f'raw limit with durability="fsync": {size} written and synced with plain file calls'
    yield Result(name, str(fsync), str(synced_files), f"{times(fsync.p50 / synced_files.p50)} times the raw calls")
