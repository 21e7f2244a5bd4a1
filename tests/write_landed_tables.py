"""Writes the tables that test_landed_tables.py reads, with the build that is installed.

Usage: `write_landed_tables.py DIRECTORY`. Each directory of `landed_tables` has the tables of one build, and what that
build read from them: one for each version, and 2026-11-28 for the code that landed on this day. Do not write the tables
of a released version anew: they show that a later build reads what that one wrote.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jobrota
import reported_runs
from jobrota.autosys import SendEvent, WebServices

KILLED_WHILE_SENDING = """
import os, signal, sys, jobrota

def send(*event):
    os.kill(os.getpid(), signal.SIGKILL)

jobrota.AutosysUpdater(jobrota.JobLedger(sys.argv[1]), send, lease_ttl=1, first=["JOB_IN_DOUBT"]).run()
"""
START = datetime(2026, 11, 27, 8, 0, tzinfo=timezone.utc)


def rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a table, as JSON holds them, in an order that does not depend on files."""
    columns = [table.column(name).to_pylist() for name in table.column_names]
    plain = [[str(value) if isinstance(value, datetime) else value for value in column] for column in columns]
    records = [dict(zip(table.column_names, row, strict=True)) for row in zip(*plain, strict=True)]
    return sorted(records, key=lambda row: json.dumps(row, sort_keys=True))


def deliver(ledger: jobrota.JobLedger, answer: Any, **options: Any) -> jobrota.DeliveryReport:
    """One cycle in which `answer` says how each event ends."""
    return jobrota.AutosysUpdater(ledger, answer, backoff=0, **options).run()


def interrupted(*event: str) -> bool:
    """A transport that is interrupted before its answer."""
    raise KeyboardInterrupt


def write(root: Path) -> None:
    """A row for each outcome, operator actions, an import, turns and a comparison."""
    ledger = jobrota.JobLedger(root)
    minute = iter(range(1000))

    def log(job: str, status: str = "SUCCESS") -> None:
        at = START + timedelta(minutes=next(minute))
        ledger.log_job_execution("ae.sas", job, status, execution_timestamp=at)
        ledger.log_job_completion("ae.sas", job, status, notification_timestamp=at)

    log("JOB_DELIVERED")
    deliver(ledger, lambda *event: True)
    log("JOB_FAILED")
    deliver(ledger, lambda *event: False)
    log("JOB_SUPERSEDED", "RUNNING")
    log("JOB_SUPERSEDED", "SUCCESS")
    deliver(ledger, lambda file, job, status: job == "JOB_SUPERSEDED", order="latest")
    log("JOB_PARKED")
    for _ in range(2):
        deliver(ledger, lambda *event: False, max_attempts=2)
    log("JOB_SETTLED")
    deliver(ledger, lambda file, job, status: job != "JOB_SETTLED" and job == "JOB_FAILED")
    pending = ledger.pending_notifications(job_id="JOB_SETTLED")
    ledger.settle_by_hand(pending, reason="seen in AutoSys", delivered=True, by="operator@host")
    log("JOB_REDRIVEN")
    for _ in range(2):
        deliver(ledger, lambda *event: False, max_attempts=2)
    ledger.redrive(job_id="JOB_REDRIVEN", reason="AutoSys is back", by="operator@host")
    log("JOB_EXPIRED")
    deliver(ledger, lambda *event: True, stale_after="1s")
    with jobrota.Sandbox(viya=False) as sandbox:
        user, password = sandbox.autosys_credentials
        log("JOB_BY_WEB_SERVICES")
        deliver(ledger, WebServices(sandbox.autosys_url, user=user, password=password))
        log("JOB_BY_SENDEVENT")
        deliver(ledger, SendEvent(sandbox.sendevent))
    program = root.with_name("sendevent")
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    program.chmod(0o755)
    log("JOB_UNKNOWN")
    assert deliver(ledger, SendEvent(program)).unknown == 1
    log("JOB_NOT_SENT")
    log("JOB_NOT_SENT_EITHER")
    with suppress(KeyboardInterrupt):
        deliver(ledger, interrupted, concurrency=1)
    outcomes = {(row["outcome"], row["detail"]) for row in rows(ledger.deliveries())}
    assert ("failed", "not sent: the delivery was stopped before its turn") in outcomes
    log("JOB_IN_DOUBT")
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_SENDING, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL, killed
    log("JOB_PENDING")

    folder = root.parent / "legacy"
    folder.mkdir()
    record = {"file_name": "dm.sas", "job_id": "JOB_IMPORTED", "status": "SUCCESS", "timestamp": "2026-11-26T09:00:00Z"}
    (folder / "one.json").write_text(json.dumps(record))
    ledger.import_json(folder)

    vms = {f"vm{n}": {"ip_address": f"127.0.0.{n}", "nic_name": f"nic-{n}"} for n in (1, 2, 3)}
    selector = jobrota.RoundRobinSelector(
        vms, cursor=root, probe=lambda vm: (vms[vm]["ip_address"], vms[vm]["nic_name"])
    )
    chosen = [selector.select()[0] for _ in range(4)]
    selector.drain("vm2")

    run = jobrota.ComparisonResult.from_table(reported_runs.recorded())
    run.append_to(root)

    expected = {
        "executions": rows(ledger.executions()),
        "notifications": rows(ledger.notifications()),
        "deliveries": rows(ledger.deliveries()),
        "pending": rows(ledger.pending_notifications()),
        "parked": rows(ledger.parked()),
        "chosen": chosen,
        "comparison_jobs": run.append_to(root),
    }
    (root.parent / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) / "tables")
