"""Delivering to AutoSys from Python: a refused row stays pending, and only that row is sent again."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jobrota
from support import column, rows


def test_the_second_cycle_delivers_exactly_what_was_refused(ledger: jobrota.JobLedger) -> None:
    with jobrota.Sandbox(refuse_first=["B", "D"]) as sandbox:
        for name in "ABCDE":
            ledger.log_job_execution(f"{name}.sas", name, "SUCCESS")
            ledger.log_job_completion(f"{name}.sas", name, "SUCCESS")
        updater = jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent(program=sandbox.sendevent))
        first = updater.run()
        assert sorted(column(ledger.pending_notifications(), "job_id")) == ["B", "D"]
        assert (first.delivered, first.failed, first.settled, first.pending) == (3, 2, 3, 2)
        assert sorted(column(ledger.fetch_unprocessed_updates(), "job_id")) == ["B", "D"]
        second = updater.run()
        assert (second.delivered, second.failed, second.pending) == (2, 0, 0)
        assert ledger.fetch_unprocessed_updates().num_rows == 0
        events = sandbox.autosys_events()
    assert sorted(event["job"] for event in events) == list("ABCDE")
    assert {event["event"] for event in events} == {"CHANGE_STATUS"}


def test_every_attempt_is_on_record(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    refused = jobrota.AutosysUpdater(ledger, lambda file_name, job_id, status: False).run()
    assert (refused.delivered, refused.failed, refused.pending) == (0, 1, 1)
    assert jobrota.AutosysUpdater(ledger, lambda file_name, job_id, status: True).run().delivered == 1
    outcomes = [outcome for outcome in column(ledger.deliveries(), "outcome") if outcome != "sending"]
    assert outcomes == ["failed", "delivered"]
    assert ledger.summary().attempts["delivered"] == 1


def test_a_callable_gets_the_values_verbatim(ledger: jobrota.JobLedger) -> None:
    sent: list[tuple[str, str, str]] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append((file_name, job_id, status))
        return True

    row = ("a'; DROP TABLE x; --.sas", "JOB.A#1", "SUCCESS")
    ledger.log_job_completion(*row)
    jobrota.AutosysUpdater(ledger, send).run()
    assert sent == [row]


def test_a_callable_that_raises_has_not_delivered(ledger: jobrota.JobLedger) -> None:
    def send(file_name: str, job_id: str, status: str) -> bool:
        raise TimeoutError("AutoSys did not answer")

    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    report = jobrota.AutosysUpdater(ledger, send).run()
    assert (report.delivered, report.pending) == (0, 1)
    assert any("AutoSys did not answer" in (detail or "") for detail in column(ledger.deliveries(), "detail"))


def test_a_callable_is_called_one_at_a_time(ledger: jobrota.JobLedger) -> None:
    inside, overlaps = threading.Lock(), 0

    def send(file_name: str, job_id: str, status: str) -> bool:
        nonlocal overlaps
        if not inside.acquire(blocking=False):
            overlaps += 1
            return False
        try:
            return True
        finally:
            inside.release()

    for number in range(20):
        ledger.log_job_completion("a.sas", f"J{number}", "SUCCESS")
    assert jobrota.AutosysUpdater(ledger, send).run().delivered == 20
    assert overlaps == 0


def test_an_async_callable_is_awaited(ledger: jobrota.JobLedger) -> None:
    async def send(file_name: str, job_id: str, status: str) -> bool:
        return True

    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert jobrota.AutosysUpdater(ledger, send).run().delivered == 1


@pytest.mark.parametrize("job_id", ["two words", "a;b", "x" * 65, "$(id)", "wild%card", "ünï"])
def test_names_that_autosys_would_refuse_are_parked(ledger: jobrota.JobLedger, job_id: str) -> None:
    with jobrota.Sandbox() as sandbox:
        ledger.log_job_completion("a.sas", job_id, "SUCCESS")
        ledger.log_job_completion("b.sas", "GOOD", "SUCCESS")
        report = jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent(program=sandbox.sendevent)).run()
        assert (report.delivered, report.parked) == (1, 1)
        assert column(ledger.pending_notifications(), "job_id") == [job_id]
        assert [event["job"] for event in sandbox.autosys_events()] == ["GOOD"]


def test_a_status_without_a_mapping_is_parked(ledger: jobrota.JobLedger) -> None:
    with jobrota.Sandbox() as sandbox:
        ledger.log_job_completion("a.sas", "A", "success")
        report = jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent(program=sandbox.sendevent)).run()
    assert (report.delivered, report.parked) == (0, 1)


def recorder(tmp_path: Path) -> tuple[Path, Path]:
    """A sendevent that writes each argument on a line of its own."""
    program, log = tmp_path / "sendevent", tmp_path / "arguments"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program, log


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (jobrota.autosys.CHANGE_STATUS, ["CHANGE_STATUS", "SUCCESS"]),
        (jobrota.autosys.STARTJOB, ["STARTJOB"]),
        ({"SUCCESS": "FORCE_STARTJOB"}, ["FORCE_STARTJOB"]),
        ({"SUCCESS": "CHANGE_STATUS INACTIVE"}, ["CHANGE_STATUS", "INACTIVE"]),
    ],
)
def test_the_mapping_decides_the_event(
    ledger: jobrota.JobLedger, tmp_path: Path, mapping: str | dict[str, str], expected: list[str]
) -> None:
    program, log = recorder(tmp_path)
    ledger.log_job_completion("a.sas", "JOB.A", "SUCCESS")
    report = jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent(program=program), mapping=mapping).run()
    assert report.delivered == 1
    arguments = log.read_text().splitlines()
    assert arguments[arguments.index("-E") + 1] == expected[0]
    assert arguments[arguments.index("-J") + 1] == "JOB.A"
    if len(expected) > 1:
        assert arguments[arguments.index("-s") + 1] == expected[1]
    else:
        assert "-s" not in arguments


def test_a_sendevent_that_does_not_exist_loses_nothing_and_uses_no_attempt(
    ledger: jobrota.JobLedger, tmp_path: Path
) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    updater = jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent(program=tmp_path / "no-such-program"))
    for _ in range(2):
        with pytest.raises(jobrota.DeliveryError, match="no-such-program was not found") as caught:
            updater.run()
        assert not caught.value.retryable
    assert ledger.deliveries().num_rows == 0
    assert column(ledger.pending_notifications(), "job_id") == ["A"]


def test_a_variable_that_the_program_prints_is_not_shown(ledger: jobrota.JobLedger, tmp_path: Path) -> None:
    program = tmp_path / "sendevent"
    program.write_text('#!/bin/sh\nprintf "%1000s login failed with $AUTOSYS_PASSWORD for $AUTOSERV" "" >&2\nexit 1\n')
    program.chmod(0o755)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    environment = {"AUTOSYS_PASSWORD": "pass word 1234567890", "AUTOSERV": "ACE"}
    transport = jobrota.autosys.SendEvent(program=program, env=environment)
    report = jobrota.AutosysUpdater(ledger, transport).run()
    assert "login failed" in report.failures[0]["detail"]
    shown = f"{report.failures} {rows(ledger.deliveries())} {transport!r}"
    assert "pass" not in shown.replace("login failed with", "")


def test_a_dry_run_sends_and_writes_nothing(ledger: jobrota.JobLedger, tmp_path: Path) -> None:
    program, log = recorder(tmp_path)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    before = rows(ledger.notifications())
    jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent(program=program), dry_run=True).run()
    assert not log.exists()
    assert rows(ledger.notifications()) == before
    assert ledger.deliveries().num_rows == 0


def test_executions_can_be_the_source(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    report = jobrota.AutosysUpdater(ledger, lambda *row: True, source="autosys_job_log").run()
    assert (report.delivered, ledger.fetch_unprocessed_updates().num_rows) == (1, 0)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_callable_interrupt_saves_outcomes_first(ledger: jobrota.JobLedger, interrupt: type[BaseException]) -> None:
    taken: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        if job_id == "J2":
            raise interrupt("enough")
        taken.append(job_id)
        return True

    for number in range(5):
        ledger.log_job_completion("a.sas", f"J{number}", "SUCCESS")
    updater = jobrota.AutosysUpdater(ledger, send)
    with pytest.raises(interrupt, match="enough"):
        updater.run()
    assert taken == ["J0", "J1"]
    assert column(ledger.pending_notifications(), "job_id") == ["J2", "J3", "J4"]
    words = {row[2]: row[6] for row in rows(ledger.deliveries()) if row[6] != "sending"}
    assert words == {"J0": "delivered", "J1": "delivered", "J2": "unknown", "J3": "failed", "J4": "failed"}
    with pytest.raises(interrupt):  # it is not remembered: the next cycle tries the row again
        updater.run()


def test_a_callable_whose_own_awaiting_was_canceled_has_failed(ledger: jobrota.JobLedger) -> None:
    async def send(file_name: str, job_id: str, status: str) -> bool:
        raise asyncio.CancelledError

    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    report = jobrota.AutosysUpdater(ledger, send).run()
    assert (report.failed, report.unknown) == (1, 0)


def test_ctrl_c_loses_no_outcome(tmp_path: Path) -> None:
    """A real SIGINT while the third event is under way: it is recorded, nothing more is sent, and then it ends."""
    program = f"""
import signal, sys
import jobrota
interrupts = []
def interrupt(*_):
    interrupts.append(1)
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
# The main thread runs this one only once it has dealt with the other.
signal.signal(signal.SIGUSR1, lambda *_: print("seen" if interrupts else "not yet", flush=True))
ledger = jobrota.JobLedger({str(tmp_path / "ledger")!r})
for number in range(5):
    ledger.log_job_completion("a.sas", f"J{{number}}", "SUCCESS")
taken = []
def send(file_name, job_id, status):
    taken.append(job_id)
    if len(taken) == 3:
        print("under way", flush=True)
        sys.stdin.readline()
    return True
try:
    jobrota.AutosysUpdater(ledger, send).run()
except KeyboardInterrupt:
    print("interrupted", *taken, flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGUSR1)
        while process.stdout.readline() == "not yet\n":
            process.send_signal(signal.SIGUSR1)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "interrupted J0 J1 J2\n"
    assert process.returncode == 0
    ledger = jobrota.JobLedger(tmp_path / "ledger")
    assert column(ledger.pending_notifications(), "job_id") == ["J3", "J4"]
    assert column(ledger.deliveries(), "outcome").count("delivered") == 3
