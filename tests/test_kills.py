"""Processes that log and acknowledge are killed at random moments: each row whose call returned is there once."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import jobrota
import kill_child
from support import column

KILLS = 208
AT_ONCE = 4
LATEST_S = 0.150
"""A child is killed within so many seconds of the first row that it logged or acknowledged."""

ROLES = ["log", "acknowledge", "log from threads", "log"]

pytestmark = [
    pytest.mark.timeout(600),
    # Thousands of single rows are the point here.
    pytest.mark.filterwarnings("ignore::jobrota.errors.MaintenanceWarning"),
]


@dataclass
class Aftermath:
    """The ledger after all kills, and what the killed said before."""

    root: Path
    killed: int
    begun: set[str] = field(default_factory=set)
    """Rows that a child was about to log, whether or not the call returned."""
    logged: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)

    def take(self, report: Path) -> None:
        """Takes in what one child said; its last line may be cut short by the kill."""
        for line in report.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                what, keys = json.loads(line)
                {"logging": self.begun, "logged": self.logged, "acknowledged": self.acknowledged}.get(
                    what, set()
                ).update(keys)

    def check(self, flags: dict[str, list[str]]) -> None:
        """`flags`: of each row's job, the flags of all its copies as an engine reads them."""
        assert sorted(self.logged - flags.keys()) == [], "rows whose call returned are missing"
        assert sorted(key for key, copies in flags.items() if len(copies) > 1) == [], "rows are there twice"
        assert sorted(flags.keys() - self.begun) == [], "rows that no child logged"
        assert sorted(key for key in self.acknowledged if flags.get(key) != ["YES"]) == [], "rows are pending again"


def gather(rows: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The flags by job."""
    flags: dict[str, list[str]] = {}
    for job_id, flag in rows:
        flags.setdefault(job_id, []).append(flag)
    return flags


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    """Four children at a time, each killed at its own moment, until the number of kills is reached."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the kills: {seed}")
    root = tmp_path_factory.mktemp("killed")
    jobrota.JobLedger(root).log_job_completion("killed.sas", "before", "SUCCESS")
    # Forked from a process that has only imported: each child is a process of its own, without an interpreter's start.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kill_child"])

    def kill_one(number: int) -> tuple[bool, Path]:
        report = root / f"child-{number}.jsonl"
        here, there = context.Pipe(duplex=False)
        role = ROLES[number % len(ROLES)]
        child = context.Process(target=kill_child.run, args=(role, str(root), f"c{number}", str(report), there))
        child.start()
        there.close()
        assert here.poll(120), f"child {number} ({role}) did nothing for two minutes"
        moment = random.Random(f"{seed}/{number}").uniform(0, LATEST_S)
        # Not a wait for something to happen: the moment of the kill is what varies.
        child.join(moment)
        alive = child.is_alive()
        assert alive, f"child {number} ({role}) ended by itself with {child.exitcode}: its error is in the output"
        child.kill()
        child.join(60)
        # A forkserver that is busy may not be able to say how its child ended.
        return child.exitcode in (-signal.SIGKILL, 255), report

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(kill_one, range(KILLS)))
    after = Aftermath(root, sum(killed for killed, _ in outcomes), {"before"}, {"before"})
    for _, report in outcomes:
        after.take(report)
    print(f"{after.killed} kills, {len(after.logged)} rows logged, {len(after.acknowledged)} acknowledged")
    return after


def test_every_child_was_killed_while_working(aftermath: Aftermath) -> None:
    assert aftermath.killed == KILLS >= 200
    # Each logging child had logged a row before it was killed, and the others had acknowledged some.
    assert len(aftermath.logged) > KILLS // 2
    assert len(aftermath.acknowledged) > KILLS // 8


def test_what_returned_is_there_once_and_stays_acknowledged(aftermath: Aftermath) -> None:
    table = jobrota.JobLedger(aftermath.root).notifications()
    aftermath.check(gather(list(zip(column(table, "job_id"), column(table, "autosys_update_flag"), strict=True))))


def test_deltalake_reads_the_same(aftermath: Aftermath) -> None:
    deltalake = pytest.importorskip("deltalake")
    table = deltalake.DeltaTable(str(aftermath.root / "job_notifications")).to_pyarrow_table()
    aftermath.check(
        gather(list(zip(*(table[name].to_pylist() for name in ("job_id", "autosys_update_flag")), strict=True)))
    )


def test_spark_reads_the_same(aftermath: Aftermath, spark: Any) -> None:
    rows = spark.sql(f"SELECT job_id, autosys_update_flag FROM delta.`{aftermath.root}/job_notifications`").collect()
    aftermath.check(gather([tuple(row) for row in rows]))


def test_work_goes_on(aftermath: Aftermath) -> None:
    ledger = jobrota.JobLedger(aftermath.root)
    ledger.log_job_completion("after.sas", "after", "SUCCESS")
    delivered: Counter[str] = Counter()

    def send(file_name: str, job_id: str, status: str) -> bool:
        delivered[job_id] += 1
        return True

    pending = sorted(column(ledger.pending_notifications(), "job_id"))
    jobrota.AutosysUpdater(ledger, send, order="none").run()
    assert sorted(delivered.elements()) == pending
    assert ledger.pending_notifications().num_rows == 0
    aftermath.begun.add("after")
    aftermath.logged.add("after")
