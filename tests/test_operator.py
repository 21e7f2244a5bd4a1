"""What operators see of a ledger, and operator actions."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable
from prometheus_client.parser import text_string_to_metric_families

import jobrota
from jobrota.display import repr_html
from support import column, rows, run

NASTY = 'a\\b"c\nd{e="f"}'


def ago(**span: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(**span)


def deliver(ledger: jobrota.JobLedger, answer: Any = True, **options: Any) -> Any:
    """One cycle with a callable that always answers the same."""
    return jobrota.AutosysUpdater(ledger, lambda *row: answer, **options).run()


def notifications(names: list[str], at: datetime, **flag: str) -> Table:
    """Rows of one job."""
    texts = {"file_name": names, "job_id": ["A"] * len(names), "status": ["SUCCESS"] * len(names)}
    texts |= {name: [value] * len(names) for name, value in flag.items()}
    columns = {name: Array(values, DataType.string()) for name, values in texts.items()}
    micros = int(at.timestamp() * 1_000_000)
    times = Array([micros] * len(names), DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    return Table.from_pydict({**columns, "notification_timestamp": times})


def outcomes(ledger: jobrota.JobLedger) -> list[tuple[str, str | None]]:
    attempts = ledger.deliveries()
    return list(zip(column(attempts, "outcome"), column(attempts, "detail"), strict=True))


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a Prometheus text, as the official parser reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def busy(ledger: jobrota.JobLedger) -> jobrota.JobLedger:
    """A ledger with a parked row, one that is tried again, a fresh one, and an execution without a notification."""
    ledger.log_job_completion("f", "REFUSED", "SUCCESS", notification_timestamp=ago(days=2))
    assert deliver(ledger, answer=False, max_attempts=1).parked == 1
    ledger.log_job_completion("f", "RETRIED", "SUCCESS", notification_timestamp=ago(hours=2))
    assert deliver(ledger, answer=False).failed == 1
    ledger.log_job_completion("g", "FRESH", NASTY)
    ledger.log_job_execution("lost", "LOST", "SUCCESS", execution_timestamp=ago(hours=3))
    return ledger


def test_summary_of_pending_and_deliveries(busy: jobrota.JobLedger) -> None:
    summary = busy.summary()
    assert (summary.source, summary.pending, summary.parked, summary.retrying) == ("job_notifications", 3, 1, 1)
    assert summary.pending_by_status == {"SUCCESS": 2, NASTY: 1}
    assert summary.pending_by_age == {"under_15m": 1, "15m_to_1h": 0, "1h_to_24h": 1, "over_24h": 1}
    assert summary.oldest_pending == column(busy.pending_notifications(), "notification_timestamp")[0]
    assert summary.unnotified == 1
    assert summary.next_retry is None  # with the next delivery
    # One parked and one failed.
    assert summary.success_rate == 0.0
    assert summary.executions["pending_by_age"]["1h_to_24h"] == 1
    assert deliver(busy).delivered == 2
    summary = busy.summary()
    assert summary.success_rate == 0.5
    assert (summary.pending, summary.retrying, summary.attempts["delivered"]) == (1, 0, 2)
    later = busy.summary(since=datetime.now(timezone.utc))
    assert (later.attempts, later.success_rate) == ({}, None)
    assert asyncio.run(busy.summary_async(since=summary.since)).attempts == summary.attempts
    values = summary.to_dict()
    for name, value in values.items():
        assert getattr(summary, name) == value
    with pytest.raises(jobrota.InvalidInputError, match="since"):
        busy.summary(since=datetime(2026, 1, 1))


def test_prometheus_reads_it_as_it_is(busy: jobrota.JobLedger) -> None:
    summary = busy.summary()
    found = samples(summary.to_prometheus())
    table = ("table", "job_notifications")
    assert found["jobrota_pending_rows", (("status", NASTY), table)] == 1
    assert found["jobrota_pending_rows", (("status", "SUCCESS"), table)] == 2
    assert found["jobrota_pending_rows_by_age", (("age", "over_24h"), table)] == 1
    assert found["jobrota_parked_rows", (table,)] == 1
    assert found["jobrota_rows", (("flag", "NO"), table)] == 3
    assert found["jobrota_executions_without_notification", ()] == 1
    assert summary.oldest_pending is not None
    oldest = found["jobrota_oldest_pending_timestamp_seconds", (table,)]
    assert oldest == pytest.approx(summary.oldest_pending.timestamp(), abs=1e-3)
    assert found["jobrota_success_ratio", ()] == 0
    assert found["jobrota_recent_attempts", (("outcome", "parked"),)] == 1
    for status in ("\\", '"', "\n", "\\n", 'x"} 1\nfake 2', "é\t\r"):
        busy.log_job_completion("f", "ODD", status)
        assert found.keys() < samples(busy.summary().to_prometheus()).keys()
        assert samples(busy.summary().to_prometheus())["jobrota_pending_rows", (("status", status), table)] == 1


def test_parked_rows_are_listed_and_come_back(busy: jobrota.JobLedger) -> None:
    parked = busy.parked()
    assert parked.column_names == [
        "file_name", "job_id", "status", "notification_timestamp", "attempts", "reason", "parked_at", "transport",
    ]  # fmt: skip
    assert (column(parked, "job_id"), column(parked, "attempts")) == (["REFUSED"], [1])
    assert "refused" in column(parked, "reason")[0]
    assert rows(asyncio.run(busy.parked_async())) == rows(parked)
    assert deliver(busy, dry_run=True).parked == 1
    assert busy.redrive(busy.pending_notifications(job_id="RETRIED")) == 0  # it is not parked
    assert busy.redrive(job_id="nobody") == 0
    assert busy.redrive(parked, reason="the job exists now", by="alice") == 1
    assert busy.redrive(parked) == 0
    assert outcomes(busy)[-1] == ("redriven", "redriven by alice: the job exists now")
    assert busy.parked().num_rows == 0
    report = deliver(busy)
    assert (report.delivered, report.parked, report.pending) == (3, 0, 0)


def test_a_row_is_settled_by_hand_and_not_sent(busy: jobrota.JobLedger) -> None:
    parked = busy.parked()
    with pytest.raises(jobrota.InvalidInputError, match="reason is empty"):
        busy.settle_by_hand(parked, reason=" ", delivered=True)
    assert busy.settle_by_hand(parked, reason="autorep shows SU", delivered=True, by="bob") == 1
    assert busy.settle_by_hand(parked, reason="autorep shows SU", delivered=True, by="bob") == 0
    assert outcomes(busy)[-1] == ("by_hand", "acknowledged by bob: autorep shows SU")
    retried = busy.pending_notifications(job_id="RETRIED")
    assert asyncio.run(busy.settle_by_hand_async(retried, reason="too late", delivered=False)) == 1
    last = outcomes(busy)[-1]
    assert last[0] == "by_hand"
    assert last[1] is not None
    assert last[1].startswith("skipped by ")
    assert last[1].endswith(": too late")
    sent: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append(job_id)
        return True

    jobrota.AutosysUpdater(busy, send).run()
    assert sent == ["FRESH"]


def test_identical_rows_are_settled_one_by_one(ledger: jobrota.JobLedger) -> None:
    at = ago(hours=1)
    for _ in range(3):
        ledger.log_job_completion("f", "A", "SUCCESS", notification_timestamp=at)
    one = ledger.pending_notifications(limit=1)
    assert ledger.settle_by_hand(one, reason="r", delivered=True) == 1
    assert ledger.pending_notifications().num_rows == 2
    assert deliver(ledger, answer=False, max_attempts=1, order="none").parked == 2
    assert ledger.redrive(one) == 1
    assert ledger.parked().num_rows == 1
    report = deliver(ledger, order="none")
    assert (report.delivered, report.parked) == (1, 1)
    assert ledger.settle_by_hand(ledger.parked(), reason="r", delivered=False) == 1
    assert ledger.pending_notifications().num_rows == 0


def test_each_action_holds_the_lease_in_a_name_of_its_own(ledger: jobrota.JobLedger) -> None:
    """Two threads with one name would both hold it."""
    owners = []
    for job in ("A", "B"):
        ledger.log_job_completion("f", job, "SUCCESS")
        ledger.settle_by_hand(ledger.pending_notifications(), reason="r", delivered=True)
        leases = DeltaTable(Path(ledger.root) / "autosys_leases").to_pyarrow_table().to_pylist()
        owners += [lease["owner"] for lease in leases]
    assert len(set(owners)) == 2, owners


def test_nothing_is_done_by_hand_while_a_delivery_runs(busy: jobrota.JobLedger) -> None:
    """A callable that runs within a delivery does not hold its lease either."""
    errors: list[jobrota.JobrotaError] = []
    codes: list[int] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        with pytest.raises(jobrota.LeaseHeldError) as redriving:
            busy.redrive()
        with pytest.raises(jobrota.LeaseHeldError) as settling:
            busy.settle_by_hand(busy.parked(), reason="r", delivered=True)
        errors.extend((redriving.value, settling.value))
        codes.append(run("autosys", "redrive", "--all", "--ledger", busy.root))
        where = ("--job", "REFUSED", "--file", "f", "--ledger", busy.root)
        codes.append(run("autosys", "ack", *where, "--reason", "r"))
        return True

    report = jobrota.AutosysUpdater(busy, send).run()
    assert report.delivered == 2, report
    assert len(errors) == 4
    assert all(error.retryable and "delivering" in str(error) for error in errors)
    assert codes == [3, 3, 3, 3]
    assert busy.parked().num_rows == 1
    assert busy.redrive() == 1


def test_executions_without_a_notification_are_found(ledger: jobrota.JobLedger) -> None:
    for hours, job in ((30, "OLD"), (2, "LOST"), (2, "NOTIFIED"), (0, "RUNNING")):
        ledger.log_job_execution("f", job, "RUNNING", execution_timestamp=ago(hours=hours))
    ledger.log_job_completion("f", "NOTIFIED", "FAILURE")
    found = ledger.executions_without_notification()
    assert found.column_names == ledger.executions().column_names
    assert column(found, "job_id") == ["OLD", "LOST"]
    for older_than, jobs in (
        ("1d", ["OLD"]), (86_400, ["OLD"]),
        ("86400", ["OLD"]), ("23h 60m", ["OLD"]), (timedelta(days=1), ["OLD"]),
        ("90 s", ["OLD", "LOST"]), ("45m", ["OLD", "LOST"]), ("2d", []),
        (0, ["OLD", "LOST", "RUNNING"]), ("0s", ["OLD", "LOST", "RUNNING"]), (1.5, ["OLD", "LOST"]),
    ):  # fmt: skip
        assert column(ledger.executions_without_notification(older_than=older_than), "job_id") == jobs, older_than
    assert asyncio.run(ledger.executions_without_notification_async(older_than="1d")).num_rows == 1
    bad_durations: list[Any] = ["", "h", "-1h", "1w", "1hh", "infh", "nan", -1, True, [], float("nan"), "9e9d"]
    for bad in bad_durations:
        with pytest.raises(jobrota.InvalidInputError, match="older_than"):
            ledger.executions_without_notification(older_than=bad)
    # An operator settles it.
    assert ledger.settle_by_hand(found, reason="cancelled", delivered=False, table="autosys_job_log") == 2
    assert ledger.executions_without_notification().num_rows == 0


def test_the_commands_show_and_settle(busy: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    def ran(code: int, *arguments: Any) -> tuple[str, str]:
        assert run("autosys", *arguments, "--ledger", busy.root) == code
        out, err = capsys.readouterr()
        return out, err

    shown, _ = ran(0, "status")
    for text in ("job_notifications", "1 h to 24 h", "0.0 % of the attempts", "next retry: with the next delivery"):
        assert text in shown
    assert "parked: 1, see jobrota autosys parked" in shown
    assert "executions without a notification: 1" in shown
    assert NASTY not in shown
    values = json.loads(ran(0, "status", "--json")[0])
    assert (values["pending"], values["parked"], values["success_rate"]) == (3, 1, 0.0)
    oldest = busy.summary().oldest_pending
    assert oldest is not None
    assert values["oldest_pending"] == oldest.isoformat().replace("+00:00", "Z")
    assert json.loads(ran(0, "status", "--json", "--since", "0s")[0])["attempts"] == {}
    assert json.loads(ran(0, "status", "--json", "--since", "2d")[0])["attempts"]["parked"] == 1
    for since in ("2026-05-01Z", "2026-05-01T00:00:00Z", "2026-05-01T02:00:00+02:00"):
        assert json.loads(ran(0, "status", "--json", "--since", since)[0])["since"] == "2026-05-01T00:00:00Z"
    none = ("ack", "--job", "none", "--file", "f", "--reason", "r", "--at", "2026-05-01Z")
    assert "at 2026-05-01T00:00:00Z; nothing was done" in ran(1, *none)[1]
    assert samples(ran(0, "status", "--prometheus")[0])["jobrota_parked_rows", (("table", "job_notifications"),)] == 1

    assert "REFUSED" in ran(0, "parked")[0]
    assert [row["job_id"] for row in json.loads(ran(0, "parked", "--json")[0])] == ["REFUSED"]
    assert "LOST" in ran(0, "unnotified")[0]
    assert json.loads(ran(0, "unnotified", "--older-than", "1d", "--json")[0]) == []
    assert "no execution is without" in ran(0, "unnotified", "--older-than", "1d")[0]

    assert ran(1, "redrive", "--job", "nobody")[1].startswith("jobrota: no row of job nobody is parked")
    assert "1 row is no longer parked" in ran(0, "redrive", "--job", "REFUSED", "--reason", "it exists now")[0]
    assert ran(1, "redrive", "--all")[1]
    assert "no row is parked" in ran(0, "parked")[0]
    assert json.loads(ran(0, "parked", "--json")[0]) == []

    assert "acknowledged: REFUSED" in ran(0, "ack", "--job", "REFUSED", "--file", "f", "--reason", "seen")[0]
    assert "nothing was done" in ran(1, "ack", "--job", "REFUSED", "--file", "f", "--reason", "seen")[1]
    assert ran(1, "skip", "--job", "RETRIED", "--file", "other", "--reason", "r")[1]
    assert "skipped: RETRIED" in ran(0, "skip", "--job", "RETRIED", "--file", "f", "--reason", "too late")[0]
    assert column(busy.pending_notifications(), "job_id") == ["FRESH"]
    where = ("--job", "LOST", "--file", "lost", "--table", "autosys_job_log")
    assert "skipped: LOST" in ran(0, "skip", *where, "--reason", "cancelled")[0]
    assert busy.summary().unnotified == 0


def test_ambiguous_row_is_not_settled(ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    times = [datetime(2026, 5, 1, 6, minute, tzinfo=timezone.utc) for minute in (0, 1, 1)]
    for at in times:
        ledger.log_job_completion("f", "A", "SUCCESS", notification_timestamp=at)
    where = ("autosys", "ack", "--ledger", ledger.root, "--job", "A", "--file", "f", "--reason", "r")
    assert run(*where) == 2
    listed = capsys.readouterr().err
    assert "--at 2026-05-01T06:00:00Z" in listed
    assert ledger.pending_notifications().num_rows == 3
    assert run(*where, "--at", "2026-05-01T06:02:00Z") == 1
    assert run(*where, "--at", "2026-05-01T08:01:00+02:00") == 0
    assert "1 identical row is still pending" in capsys.readouterr().out
    assert column(ledger.pending_notifications(), "notification_timestamp") == times[:2]
    assert run(*where, "--at", "2026-05-01T06:00:00Z") == 0
    assert run(*where) == 0
    assert ledger.pending_notifications().num_rows == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("redrive",),
        ("redrive", "--all", "--job", "A"),
        ("ack", "--job", "A", "--file", "f"),
        ("ack", "--job", "A", "--file", "f", "--reason", "r", "--at", "2026-05-01T06:00:00"),
        ("ack", "--job", "A", "--file", "f", "--reason", "r", "--at", "yesterday"),
        ("status", "--json", "--prometheus"),
        ("status", "--since", "2026-05-01"),
        ("status", "--since", "99999999d"),
        ("parked", "--table", "autosys_deliveries"),
    ],
)
def test_invalid_options_exit_2(arguments: tuple[str, ...], ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("f", "A", "SUCCESS")
    assert run("autosys", *arguments, "--ledger", ledger.root) == 2
    assert ledger.pending_notifications().num_rows == 1


def test_notebook_shows_problems_first(busy: jobrota.JobLedger) -> None:
    for shown in (busy.summary()._repr_html_(), busy._repr_html_()):
        assert "<b>3</b> pending" in shown
        assert "1 parked: redrive or settle them" in shown
        assert "1 executions without a notification" in shown
        assert "15 min–1 h" in shown
        # Bars are for the eye alone: each has its number beside it.
        assert shown.count('aria-hidden="true"') == shown.count('scope="row"') == 6
        assert "0.0 %" in shown
    evil = "<script>"
    busy.log_job_completion("f", "A", evil)
    assert evil not in busy.summary()._repr_html_()
    beside = repr_html("updater", {"order": "per_job", "summary": busy.summary().to_dict()})
    assert "per_job" in beside
    assert "<b>4</b> pending" in beside


def test_an_empty_ledger_shows_that_nothing_is_pending(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("f", "A", "SUCCESS")
    deliver(ledger)
    summary = ledger.summary()
    assert summary.success_rate == 1.0
    assert "Nothing is pending" in summary._repr_html_()
    assert samples(summary.to_prometheus())["jobrota_rows", (("flag", "NO"), ("table", "job_notifications"))] == 0


def test_operators_do_not_create_ledger(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path / "none")
    rows = notifications(["f"], ago(hours=1))
    for act in (
        ledger.summary,
        ledger.parked,
        ledger.redrive,
        ledger.executions_without_notification,
        lambda: ledger.settle_by_hand(rows, reason="r", delivered=True),
    ):
        with pytest.raises(jobrota.NotFoundError):
            act()
    assert not (tmp_path / "none").exists()


def test_a_long_history_costs_the_summary_nothing(ledger: jobrota.JobLedger) -> None:
    """Requests are counted, not seconds: they are the same whatever this machine does."""

    def log(count: int, number: int) -> None:
        names = [f"f{number}-{at}" for at in range(count)]
        ledger.log_notifications(notifications(names, ago(days=3), autosys_update_flag="YES"))

    ledger.log_job_completion("f", "A", "SUCCESS")
    log(10, 0)

    def gets() -> int:
        fresh = jobrota.JobLedger(ledger.root)
        before = fresh.requests["get"]
        assert fresh.summary().pending == 1
        return fresh.requests["get"] - before

    few = gets()
    log(20_000, 1)
    # One more log entry and no data file.
    assert gets() <= few + 1
    assert ledger.summary().notifications["acknowledged"] == 20_010
