"""Tables that earlier builds wrote: each later build reads them, and goes on with them."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

import jobrota
import reported_runs
from support import REPOSITORY
from write_landed_tables import rows

LANDED = Path(__file__).with_name("landed_tables")
BUILDS = sorted(folder.name for folder in LANDED.iterdir())


@pytest.fixture(params=BUILDS)
def build(request: pytest.FixtureRequest) -> str:
    """The build that wrote the tables."""
    return str(request.param)


@pytest.fixture
def root(build: str, tmp_path: Path) -> Path:
    with tarfile.open(LANDED / build / "tables.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "tables"


@pytest.fixture
def expected(build: str) -> dict[str, Any]:
    """What that build read from its tables."""
    loaded: dict[str, Any] = json.loads((LANDED / build / "expected.json").read_text())
    return loaded


def test_each_version_has_tables() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d[\w.]*)", changelog, re.MULTILINE)
    assert versions
    assert set(versions) <= set(BUILDS), "write_landed_tables.py writes them, with the wheel of the version"


def test_each_row_is_read_as_it_was(root: Path, expected: dict[str, Any]) -> None:
    ledger = jobrota.JobLedger(root)
    assert rows(ledger.executions()) == expected["executions"]
    assert rows(ledger.notifications()) == expected["notifications"]
    assert rows(ledger.deliveries()) == expected["deliveries"]
    assert rows(ledger.pending_notifications()) == expected["pending"]
    assert rows(ledger.parked()) == expected["parked"]


def test_delivery_goes_on_where_it_stopped(root: Path, expected: dict[str, Any]) -> None:
    ledger = jobrota.JobLedger(root)
    sent: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append(job_id)
        return True

    report = jobrota.AutosysUpdater(ledger, send).run()
    parked = {row["job_id"] for row in expected["parked"]}
    due = [row["job_id"] for row in expected["pending"] if row["job_id"] not in parked]
    assert sorted(sent) == sorted(due)
    assert "JOB_IN_DOUBT" in sent
    assert report.delivered == len(due)
    assert {row["job_id"] for row in rows(ledger.pending_notifications())} == parked


def test_an_operator_returns_what_is_parked(root: Path, expected: dict[str, Any]) -> None:
    ledger = jobrota.JobLedger(root)
    job = expected["parked"][0]["job_id"]
    assert ledger.redrive(job_id=job, reason="AutoSys is back", by="operator@host") == 1
    assert job not in {row["job_id"] for row in rows(ledger.parked())}


def test_the_turns_go_on(root: Path, expected: dict[str, Any]) -> None:
    vms = {f"vm{n}": {"ip_address": f"127.0.0.{n}", "nic_name": f"nic-{n}"} for n in (1, 2, 3)}
    selector = jobrota.RoundRobinSelector(
        vms, cursor=root, probe=lambda vm: (vms[vm]["ip_address"], vms[vm]["nic_name"])
    )
    assert expected["chosen"] == ["vm1", "vm2", "vm3", "vm1"]
    # vm2 would be next, and was drained.
    assert [selector.select()[0] for _ in range(2)] == ["vm3", "vm1"]


def test_comparisons_are_read_and_kept_apart(root: Path, expected: dict[str, Any]) -> None:
    assert len(rows(jobrota.comparison_history(root))) > 0
    # The run is there already.
    assert jobrota.ComparisonResult.from_table(reported_runs.recorded()).append_to(root) == expected["comparison_jobs"]
