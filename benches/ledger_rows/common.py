"""What the lines share: samples, results, and the tables of the other side."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType, Table

import jobrota

NOTIFICATIONS = "job_notifications"

# Each process is a new interpreter: neither side's threads can be forked.
CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Scale:
    """How much each row does: all of it, or the short run."""

    samples: int = 60
    seconds: float = 5.0
    """Of a measurement of a rate."""
    history: int = 5_000
    rows: int = 1_000_000
    mixed_seconds: float = 60.0


FULL = Scale()
QUICK = Scale(samples=15, seconds=1.5, history=600, rows=100_000, mixed_seconds=8.0)


@dataclass(frozen=True)
class Result:
    """One line of the table of figures."""

    what: str
    ours: str
    other: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    """None where the line has no target of its own."""


@dataclass
class Samples:
    """Milliseconds of single calls."""

    values: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], object]) -> None:
        """Measures one call."""
        start = time.perf_counter()
        work()
        self.values.append((time.perf_counter() - start) * 1_000)

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """What one call in twenty exceeds."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]

    def __str__(self) -> str:
        """Both, as the table shows them."""
        return f"{milliseconds(self.p50)} / {milliseconds(self.p95)} ms"


def milliseconds(value: float) -> str:
    """Three digits that count."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def side_by_side(count: int, *works: Callable[[], object], warm: int = 3) -> list[Samples]:
    """Samples of each of `works`, in turns of a few calls: whatever else the machine does is in all of them alike.

    The first calls of a turn do not count: the processor's caches still hold what the others worked on.
    """
    turn = max(3, count // 6)
    samples = [Samples() for _ in works]
    while len(samples[0].values) < count:
        for sample, work in zip(samples, works, strict=True):
            for _ in range(warm):
                work()
            for _ in range(turn):
                sample.take(work)
    return samples


def times(ratio: float) -> str:
    """A ratio as the table shows it."""
    return f"{ratio:,.1f}" if ratio < 100 else f"{ratio:,.0f}"


def log_one(ledger: jobrota.JobLedger) -> Callable[[], object]:
    """Logs one notification."""
    return lambda: ledger.log_job_completion("bench.sas", "BENCH", "SUCCESS")


def rows_of(count: int, flag: str, *, first: int = 0) -> Table:
    """Notifications to log in one call."""
    now = datetime.now(timezone.utc)
    columns = {
        "file_name": [f"study_{(first + number) % 500}.sas" for number in range(count)],
        "job_id": [f"JOB_{first + number}" for number in range(count)],
        "status": ["SUCCESS"] * count,
        "autosys_update_flag": [flag] * count,
    }
    table = {name: Array(values, DataType.string()) for name, values in columns.items()}
    stamp = int(now.timestamp() * 1_000_000)
    stamps = Array([stamp + first + number for number in range(count)], DataType.int64())
    table["notification_timestamp"] = stamps.cast(DataType.timestamp("us", tz="UTC"))
    return Table.from_pydict(table)


def logged_before(ledger: jobrota.JobLedger, commits: int) -> None:
    """Gives the table so many commits of one row."""
    for _ in range(commits):
        log_one(ledger)()


class Deltalake:
    """A table of the same columns that only PyPI's deltalake has written."""

    def __init__(self, path: Path, *, partitioned: bool | None = None) -> None:
        """Creates it with all of the package's defaults; without `partitioned` it is there already."""
        import deltalake
        import pyarrow

        self.package: Any = deltalake
        self.arrow: Any = pyarrow
        self.path = str(path)
        self.one = self.arrow.table(rows_of(1, "NO"))
        if partitioned is not None:
            parts = ["autosys_update_flag"] if partitioned else None
            deltalake.write_deltalake(self.path, self.one.slice(0, 0), partition_by=parts)

    def append(self, rows: Any = None) -> None:
        """One commit of `rows`, or of one row."""
        self.package.write_deltalake(self.path, self.one if rows is None else self.arrow.table(rows), mode="append")

    def pending(self) -> Any:
        """The pending rows, as a user of the package reads them."""
        table = self.package.DeltaTable(self.path)
        return table.to_pyarrow_table(filters=[("autosys_update_flag", "=", "NO")])

    def compact(self) -> None:
        """What its users run from time to time."""
        self.package.DeltaTable(self.path).optimize.compact()

    def acknowledge(self) -> Any:
        """Sets all pending rows to YES."""
        table = self.package.DeltaTable(self.path)
        return table.update(updates={"autosys_update_flag": "'YES'"}, predicate="autosys_update_flag = 'NO'")
