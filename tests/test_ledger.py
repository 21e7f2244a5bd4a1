"""The ledger from Python: exact tables, unchanged values, and acknowledging exactly the given rows."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table

import jobrota
from support import column, rows

NASTY = [
    "a'; DROP TABLE autosys_job_log; --",
    "$(touch /tmp/owned) `id` && rm -rf ~",
    'quote " backslash \\ percent % underscore _',
    "new\nline\ttab",
    "日本語 ünï 🚀",
    " leading and trailing ",
]


def text_table(**columns: list[str]) -> Table:
    return Table.from_pydict({name: Array(values, DataType.string()) for name, values in columns.items()})


def test_the_tables_are_what_todays_sql_expects(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert ledger.executions().column_names == [
        "file_name",
        "job_id",
        "execution_timestamp",
        "status",
        "autosys_update_flag",
    ]
    assert ledger.notifications().column_names == [
        "file_name",
        "job_id",
        "status",
        "autosys_update_flag",
        "notification_timestamp",
    ]
    assert str(ledger.executions().schema.field("execution_timestamp").type) == str(DataType.timestamp("us", tz="UTC"))


def test_the_tables_are_delta_tables_below_the_root(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    assert (Path(ledger.root) / "autosys_job_log" / "_delta_log" / "00000000000000000000.json").is_file()


def test_timestamps_are_kept_to_the_microsecond(ledger: jobrota.JobLedger) -> None:
    moment = datetime(2025, 9, 15, 12, 34, 56, 789_123, tzinfo=timezone(timedelta(hours=2)))
    ledger.log_job_execution("a.sas", "A", "SUCCESS", execution_timestamp=moment)
    assert column(ledger.executions(), "execution_timestamp") == [moment]


@pytest.mark.parametrize("text", NASTY)
def test_values_are_kept_verbatim_and_acknowledged(ledger: jobrota.JobLedger, text: str) -> None:
    ledger.log_job_completion(text, text, text)
    ledger.log_job_completion("other", "other", "other")
    pending = ledger.pending_notifications(job_id=text)
    assert [row[:4] for row in rows(pending)] == [(text, text, text, "NO")]
    assert ledger.acknowledge(pending) == 1
    assert column(ledger.pending_notifications(), "job_id") == ["other"]
    assert column(ledger.notifications(flag="YES"), "file_name") == [text]


def test_acknowledging_sets_exactly_the_given_rows(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    given = ledger.pending_notifications()
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert ledger.acknowledge(given) == 1
    assert ledger.pending_notifications().num_rows == 1
    assert ledger.acknowledge(given) == 0


def test_identical_rows_are_acknowledged_by_count(ledger: jobrota.JobLedger) -> None:
    moment = datetime(2025, 9, 15, tzinfo=timezone.utc)
    for _ in range(3):
        ledger.log_job_completion("a.sas", "A", "SUCCESS", notification_timestamp=moment)
    assert ledger.acknowledge(ledger.pending_notifications(limit=2)) == 2
    assert ledger.pending_notifications().num_rows == 1


def test_executions_can_be_acknowledged_too(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    assert ledger.acknowledge(ledger.fetch_unprocessed_updates(), table="autosys_job_log") == 1
    assert ledger.fetch_unprocessed_updates().num_rows == 0


def test_many_rows_in_one_commit(ledger: jobrota.JobLedger) -> None:
    count = ledger.log_executions(text_table(file_name=["a", "b"], job_id=["A", "B"], status=["SUCCESS", "FAILURE"]))
    assert count == 2
    assert ledger.log_notifications(text_table(file_name=["a"], job_id=["A"], status=["SUCCESS"])) == 1
    assert column(ledger.executions(), "autosys_update_flag") == ["NO", "NO"]
    log = Path(ledger.root) / "autosys_job_log" / "_delta_log"
    assert len(list(log.glob("*.json"))) <= 2


def test_filters_hold_together(ledger: jobrota.JobLedger) -> None:
    start = datetime(2025, 1, 1, tzinfo=timezone.utc)
    for day in range(4):
        status = "SUCCESS" if day % 2 else "FAILURE"
        ledger.log_job_execution("a.sas", f"J{day}", status, execution_timestamp=start + timedelta(days=day))
    assert column(ledger.executions(since=start + timedelta(days=1)), "job_id") == ["J1", "J2", "J3"]
    assert column(ledger.executions(status="SUCCESS", since=start + timedelta(days=2)), "job_id") == ["J3"]
    assert column(ledger.fetch_unprocessed_updates(limit=2), "job_id") == ["J0", "J1"]
    assert column(ledger.executions(flag="YES"), "job_id") == []


def test_track_logs_success(ledger: jobrota.JobLedger) -> None:
    with ledger.track("a.sas", "A"):
        pass
    assert column(ledger.executions(), "status") == ["SUCCESS"]
    assert column(ledger.notifications(), "status") == ["SUCCESS"]


@pytest.mark.parametrize(("code", "status"), [(None, "SUCCESS"), (0, "SUCCESS"), (1, "FAILURE"), ("no", "FAILURE")])
def test_track_takes_sys_exit_for_what_it_says(ledger: jobrota.JobLedger, code: Any, status: str) -> None:
    with pytest.raises(SystemExit), ledger.track("a.sas", "A"):
        sys.exit(code)
    assert column(ledger.pending_notifications(), "status") == [status]


def test_a_status_has_at_most_1024_bytes(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "ä" * 512)
    for log in (ledger.log_job_completion, ledger.log_job_execution):
        with pytest.raises(jobrota.InvalidInputError, match="status has 1025 bytes"):
            log("a.sas", "A", "S" * 1025)
    assert ledger.pending_notifications().num_rows == 1


def test_track_logs_failure_and_lets_the_exception_through(ledger: jobrota.JobLedger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.track("a.sas", "A"):
        1 / 0  # noqa: B018
    assert column(ledger.notifications(), "status") == ["FAILURE"]


def test_summary_counts(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    ledger.acknowledge(ledger.pending_notifications())
    summary = ledger.summary()
    assert (summary.executions["rows"], summary.executions["pending"]) == (1, 1)
    assert (summary.notifications["acknowledged"], summary.notifications["pending"]) == (1, 0)
    assert summary.executions["pending_by_status"] == {"SUCCESS": 1}
    assert summary.executions["oldest_pending"].tzinfo is not None
    assert summary.to_dict()["root"] == ledger.root


def test_two_objects_see_the_same_ledger(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    other = jobrota.JobLedger(ledger.root)
    other.log_job_execution("b.sas", "B", "SUCCESS")
    assert sorted(column(ledger.executions(), "job_id")) == ["A", "B"]


def test_ctrl_c_does_not_wait_for_a_store_that_hangs(tmp_path: Path) -> None:
    slow = jobrota.JobLedger(tmp_path / "ledger", storage_options={"request_delay": "3s"})
    for call in (
        lambda: slow.log_job_execution("a.sas", "A", "SUCCESS"),
        lambda: slow.pending_executions(),
        lambda: jobrota.JobLedger(tmp_path / "ledger", storage_options={"request_delay": "3s"}),
    ):
        begun = time.monotonic()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            call()
        assert time.monotonic() - begun < 2.5


def test_the_local_disk_of_a_cluster_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jobrota.JobLedger(tmp_path / "ledger")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "16.4")
    with pytest.warns(UserWarning, match="lost with the cluster: give a root that lasts"):
        jobrota.JobLedger(tmp_path / "ledger")

    async def opened() -> jobrota.JobLedger:
        return await jobrota.JobLedger.open_async(tmp_path / "ledger")

    with pytest.warns(UserWarning, match="lost with the cluster"):
        asyncio.run(opened())
    failed = [check for check in jobrota.doctor(ledger=tmp_path / "ledger").checks if check.status == "failed"]
    assert any(check.name == "lasting" and "lost with the cluster" in check.detail for check in failed)
