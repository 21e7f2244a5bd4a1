"""Tables that an earlier build wrote: each later build reads them, and goes on with them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import jobrota
import reported_runs
from write_landed_tables import rows

LANDED = Path(__file__).with_name("landed_tables")
EXPECTED: dict[str, Any] = json.loads((LANDED / "expected.json").read_text())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with tarfile.open(LANDED / "tables.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "tables"


def test_each_row_is_read_as_it_was(root: Path) -> None:
    ledger = jobrota.JobLedger(root)
    assert rows(ledger.executions()) == EXPECTED["executions"]
    assert rows(ledger.notifications()) == EXPECTED["notifications"]
    assert rows(ledger.deliveries()) == EXPECTED["deliveries"]
    assert rows(ledger.pending_notifications()) == EXPECTED["pending"]
    assert rows(ledger.parked()) == EXPECTED["parked"]


def test_delivery_goes_on_where_it_stopped(root: Path) -> None:
    ledger = jobrota.JobLedger(root)
    sent: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append(job_id)
        return True

    report = jobrota.AutosysUpdater(ledger, send).run()
    parked = {row["job_id"] for row in EXPECTED["parked"]}
    due = [row["job_id"] for row in EXPECTED["pending"] if row["job_id"] not in parked]
    assert sorted(sent) == sorted(due)
    assert "JOB_IN_DOUBT" in sent
    assert report.delivered == len(due)
    assert {row["job_id"] for row in rows(ledger.pending_notifications())} == parked


def test_an_operator_returns_what_is_parked(root: Path) -> None:
    ledger = jobrota.JobLedger(root)
    job = EXPECTED["parked"][0]["job_id"]
    assert ledger.redrive(job_id=job, reason="AutoSys is back", by="operator@host") == 1
    assert job not in {row["job_id"] for row in rows(ledger.parked())}


def test_the_turns_go_on(root: Path) -> None:
    vms = {f"vm{n}": {"ip_address": f"127.0.0.{n}", "nic_name": f"nic-{n}"} for n in (1, 2, 3)}
    selector = jobrota.RoundRobinSelector(
        vms, cursor=root, probe=lambda vm: (vms[vm]["ip_address"], vms[vm]["nic_name"])
    )
    assert EXPECTED["chosen"] == ["vm1", "vm2", "vm3", "vm1"]
    # vm2 would be next, and was drained.
    assert [selector.select()[0] for _ in range(2)] == ["vm3", "vm1"]


def test_comparisons_are_read_and_kept_apart(root: Path) -> None:
    assert len(rows(jobrota.comparison_history(root))) > 0
    # The run is there already.
    assert jobrota.ComparisonResult.from_table(reported_runs.recorded()).append_to(root) == EXPECTED["comparison_jobs"]
