"""The layers around a store: syncing, counting and delaying."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import jobrota
from support import column


def test_synced_rows_are_readable(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path / "new" / "ledger", durability="fsync")
    for number in range(25):
        ledger.log_job_execution(f"{number}.sas", "A", "SUCCESS")
    assert ledger.acknowledge(ledger.fetch_unprocessed_updates(limit=5), table="autosys_job_log") == 5
    plain = jobrota.JobLedger(tmp_path / "new" / "ledger")
    assert plain.executions().num_rows == 25
    assert plain.fetch_unprocessed_updates().num_rows == 20
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert left == [], "files that were being written"


def test_synced_and_other_writers_share_a_table(tmp_path: Path) -> None:
    synced, plain = jobrota.JobLedger(tmp_path, durability="fsync"), jobrota.JobLedger(tmp_path, durability="store")
    for number in range(6):
        (synced, plain)[number % 2].log_job_execution(f"{number}.sas", "A", "SUCCESS")
    assert sorted(column(plain.executions(), "file_name")) == [f"{number}.sas" for number in range(6)]


def test_a_durability_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=r'durability must be "store" or "fsync", not .disk'):
        jobrota.JobLedger(tmp_path / "ledger", durability="disk")  # type: ignore[arg-type]
    assert not (tmp_path / "ledger").exists()


def test_requests_are_counted_by_kind(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    before = ledger.requests
    assert sorted(before) == ["copy", "delete", "get", "head", "list", "put"]
    ledger.log_job_execution("b.sas", "A", "SUCCESS")
    after = ledger.requests
    assert {kind: after[kind] - before[kind] for kind in after if after[kind] != before[kind]} == {"put": 2}
    assert ledger.requests == after, "looking costs nothing"


@pytest.mark.parametrize("delay", ["0.03", 0.03])
def test_a_delay_is_waited_for_each_request(tmp_path: Path, delay: str | float) -> None:
    ledger = jobrota.JobLedger(tmp_path, storage_options={"request_delay": delay})
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    before, begun = sum(ledger.requests.values()), time.perf_counter()
    ledger.log_job_execution("b.sas", "A", "SUCCESS")
    took = time.perf_counter() - begun
    assert sum(ledger.requests.values()) - before == 2
    assert took >= 0.06


@pytest.mark.parametrize("delay", ["soon", "-1", "nan", -0.5, 61, True])
def test_a_delay_that_is_none_is_refused(tmp_path: Path, delay: str | float) -> None:
    with pytest.raises(jobrota.InvalidInputError, match="request_delay"):
        jobrota.JobLedger(tmp_path, storage_options={"request_delay": delay})
