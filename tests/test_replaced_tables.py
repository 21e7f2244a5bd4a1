"""Tables that are deleted, created again or restored while objects that use them are alive."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import deltalake
import pytest

import jobrota
from support import answers, column


def remove(root: Path, table: str) -> None:
    shutil.rmtree(root / table)


def create_again(root: Path, table: str) -> None:
    remove(root, table)
    jobrota.JobLedger(root).log_job_execution("other.sas", "OTHER", "SUCCESS")


def restore(root: Path, table: str) -> None:
    remove(root, table)
    shutil.copytree(root.parent / "backup" / table, root / table)


REPLACEMENTS: dict[Callable[[Path, str], None], list[str]] = {
    remove: ["LATER"],
    create_again: ["OTHER", "LATER"],
    restore: ["FIRST", "LATER"],
}


@pytest.mark.parametrize("replace", REPLACEMENTS, ids=lambda replace: replace.__name__)
def test_a_live_ledger_writes_nothing_into_a_table_that_is_gone(
    tmp_path: Path, replace: Callable[[Path, str], None]
) -> None:
    root = tmp_path / "ledger"
    live = jobrota.JobLedger(root)
    live.log_job_execution("a.sas", "FIRST", "SUCCESS")
    shutil.copytree(root, tmp_path / "backup")
    for number in range(4):
        live.log_job_execution("a.sas", f"OLD{number}", "SUCCESS")
    replace(root, "autosys_job_log")
    with pytest.raises(jobrota.ConflictError, match="deleted or replaced since it was opened") as refused:
        live.log_job_execution("a.sas", "REFUSED", "SUCCESS")
    assert refused.value.retryable
    live.log_job_execution("a.sas", "LATER", "SUCCESS")
    assert column(live.executions(), "job_id") == REPLACEMENTS[replace]
    # Other clients can read the table.
    table = deltalake.DeltaTable(root / "autosys_job_log")
    read = deltalake.QueryBuilder().register("t", table).execute("SELECT job_id FROM t").read_all()
    assert sorted(read["job_id"].to_pylist()) == sorted(REPLACEMENTS[replace])


def test_a_live_selector_continues_after_its_table_was_deleted(tmp_path: Path) -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2", "vm3"], cursor=tmp_path, probe=answers)
    assert [selector.select().vm for _ in range(4)] == ["vm1", "vm2", "vm3", "vm1"]
    remove(tmp_path, "vm_selections")
    with pytest.raises(jobrota.NotFoundError, match="deleted since it was opened") as gone:
        selector.select()
    assert gone.value.retryable
    assert [selector.select().vm for _ in range(3)] == ["vm1", "vm2", "vm3"]
    # Created again by another selector, with as many versions.
    remove(tmp_path, "vm_selections")
    other = jobrota.RoundRobinSelector(["vm1", "vm2", "vm3"], cursor=tmp_path, probe=answers)
    for _ in range(3):
        other.select()
    assert selector.select().vm == "vm1"
    assert sum(column(other.distribution(), "selections")) == 4


KILLED_DELIVERER = """
import os, signal, sys, jobrota

def send(file_name, job_id, status):
    with open(sys.argv[2], "a") as sent:
        print(file_name, file=sent)
    if sum(1 for _ in open(sys.argv[2])) == 140:
        os.kill(os.getpid(), signal.SIGKILL)
    return True

options = {"lease_ttl": 1, "concurrency": 4, "thread_safe": True, "order": "none"}
jobrota.AutosysUpdater(jobrota.JobLedger(sys.argv[1]), send, **options).run()
"""


def test_the_retry_state_of_attempts_that_were_replaced_does_not_count(
    ledger: jobrota.JobLedger, tmp_path: Path
) -> None:
    """The new attempts table grows past the version that the state names, and the process is killed before it saves."""
    ledger.log_job_completion("first", "A", "SUCCESS")
    for _ in range(5):
        jobrota.AutosysUpdater(ledger, lambda *_: False, lease_ttl=1).run()
    for number in range(150):
        ledger.log_job_completion(f"file {number}", f"JOB{number}", "SUCCESS")
    remove(Path(ledger.root), "autosys_deliveries")
    sent = tmp_path / "sent"
    done = subprocess.run([sys.executable, "-c", KILLED_DELIVERER, ledger.root, str(sent)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    attempts = jobrota.JobLedger(ledger.root).deliveries()
    outcomes = zip(column(attempts, "file_name"), column(attempts, "outcome"), strict=True)
    delivered = {file_name for file_name, outcome in outcomes if outcome == "delivered"}
    assert delivered
    again: list[str] = []

    def send(file_name: str, _job_id: str, _status: str) -> bool:
        again.append(file_name)
        return True

    updater = jobrota.AutosysUpdater(ledger, send, lease_ttl=1)
    while (report := updater.run()).lease_held_by:
        time.sleep(0.05)
    assert report.pending == 0
    assert not delivered & set(again)
    assert set(again) | set(sent.read_text().splitlines()) == {"first", *(f"file {number}" for number in range(150))}


def test_the_retry_state_can_be_deleted_at_any_time(ledger: jobrota.JobLedger) -> None:
    fails = True

    def send(_file_name: str, _job_id: str, _status: str) -> bool:
        return not fails

    updater = jobrota.AutosysUpdater(ledger, send)
    for job in ("A", "B"):
        ledger.log_job_completion("a.sas", job, "SUCCESS")
    for _ in range(3):
        assert updater.run().failed == 2
        remove(Path(ledger.root), "autosys_retries")
    fails = False
    assert updater.run().delivered == 2
    assert updater.run().delivered == 0
    assert ledger.pending_notifications().num_rows == 0
