"""Delivery: one process at a time, in order, retries at the right time, also with kills and outages."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import deltalake
import numpy
import pytest
from arro3.core import Array, DataType, Table

import jobrota
from support import column

# Thousands of small commits are the point here.
pytestmark = pytest.mark.filterwarnings("ignore::jobrota.errors.MaintenanceWarning")

CHILD = Path(__file__).with_name("delivery_child.py")


def take_all(file_name: str, job_id: str, status: str) -> bool:
    return True


def refuse_all(file_name: str, job_id: str, status: str) -> bool:
    return False


class Recorder:
    """Takes, or refuses, and remembers what it was sent."""

    def __init__(self, refuse: Iterable[str] = ()) -> None:
        """Refuses these jobs."""
        self.sent: list[tuple[str, str]] = []
        self.refuse = set(refuse)

    def __call__(self, file_name: str, job_id: str, status: str) -> bool:
        self.sent.append((job_id, status))
        return job_id not in self.refuse

    def jobs(self) -> list[str]:
        return [job for job, _ in self.sent]


def notify(ledger: jobrota.JobLedger, *rows: tuple[str, str], at: datetime | None = None) -> None:
    for job, status in rows:
        ledger.log_job_completion("a.sas", job, status, notification_timestamp=at)


def outcomes(ledger: jobrota.JobLedger) -> list[tuple[str, int, str]]:
    deliveries = ledger.deliveries()
    return list(zip(*(column(deliveries, name) for name in ("job_id", "attempt", "outcome")), strict=True))


# ------------------------------------------------------------------------------------------------------ the lease


def test_only_lease_holder_sends(ledger: jobrota.JobLedger) -> None:
    under_way, go = threading.Event(), threading.Event()

    def slow(file_name: str, job_id: str, status: str) -> bool:
        under_way.set()
        assert go.wait(60)
        return True

    notify(ledger, ("A", "SUCCESS"), ("B", "SUCCESS"))
    reports: list[jobrota.DeliveryReport] = []
    first = threading.Thread(target=lambda: reports.append(jobrota.AutosysUpdater(ledger, slow).run()))
    first.start()
    assert under_way.wait(60)
    second = Recorder()
    report = jobrota.AutosysUpdater(jobrota.JobLedger(ledger.root), second).run()
    assert report.lease_held_by is not None
    assert report.lease_held_by.split(":")[-1].startswith(f"{os.getpid()}/")
    assert (report.delivered, report.pending, second.sent) == (0, 2, [])
    go.set()
    first.join()
    assert (reports[0].delivered, reports[0].lease_held_by) == (2, None)
    assert jobrota.AutosysUpdater(ledger, second).run().lease_held_by is None, "it was given back"


def test_the_lease_is_renewed_while_a_cycle_runs(ledger: jobrota.JobLedger) -> None:
    """A cycle of three times the lease's time; meanwhile others try to get it all the time."""
    sent, under_way = Recorder(), threading.Event()

    def slow(file_name: str, job_id: str, status: str) -> bool:
        under_way.set()
        time.sleep(0.5)
        return sent(file_name, job_id, status)

    notify(ledger, *((f"J{number}", "SUCCESS") for number in range(6)))
    reports: list[jobrota.DeliveryReport] = []
    updater = jobrota.AutosysUpdater(ledger, slow, lease_ttl=1)
    first = threading.Thread(target=lambda: reports.append(updater.run()))
    first.start()
    assert under_way.wait(60)
    others = Recorder()
    other = jobrota.AutosysUpdater(jobrota.JobLedger(ledger.root), others, lease_ttl=1)
    while first.is_alive():
        other.run()
    assert reports[0].delivered == 6
    assert sorted(sent.jobs() + others.jobs()) == [f"J{number}" for number in range(6)], "none is sent twice"
    assert not others.sent


def test_expired_lease_is_taken_over(ledger: jobrota.JobLedger, tmp_path: Path) -> None:
    code = """
import os, sys, jobrota

def send(file_name, job_id, status):
    os.kill(os.getpid(), 9)

jobrota.AutosysUpdater(jobrota.JobLedger(sys.argv[1]), send, lease_ttl=2).run()
"""
    notify(ledger, ("A", "SUCCESS"))
    begun = time.monotonic()
    killed = subprocess.run([sys.executable, "-c", code, str(ledger.root)])
    assert killed.returncode == -signal.SIGKILL
    sent = Recorder()
    updater = jobrota.AutosysUpdater(ledger, sent)
    reports = []
    while not sent.sent:
        reports.append(updater.run())
        assert time.monotonic() - begun < 60
    assert reports[-1].delivered == 1
    assert all(report.lease_held_by for report in reports[:-1])
    assert outcomes(ledger) == [("A", 1, "sending"), ("A", 2, "sending"), ("A", 2, "delivered")]
    assert "whether attempt 1 arrived is unknown" in column(ledger.deliveries(), "detail")[1]


def log_many(ledger: jobrota.JobLedger, numbers: range, jobs: int, begun: datetime) -> None:
    """Rows whose file names are their numbers, in time order, spread over so many jobs."""
    text, micros = DataType.string(), [int((begun.timestamp() + number / 1000) * 1e6) for number in numbers]
    columns: dict[str, Any] = {
        "file_name": Array([str(number) for number in numbers], type=text),
        "job_id": Array([f"J{number % jobs}" for number in numbers], type=text),
        "status": Array(["SUCCESS" for _ in numbers], type=text),
        "notification_timestamp": Array(micros, type=DataType.int64()).cast(DataType.timestamp("us", tz="UTC")),
    }
    assert ledger.log_notifications(Table.from_pydict(columns)) == len(numbers)


@pytest.mark.timeout(600)
def test_kills_lose_nothing_and_keep_the_order(tmp_path: Path) -> None:
    """Two updaters at a time over rows of 50 jobs; one or the other is killed, 20 times."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    root, sent = tmp_path / "ledger", tmp_path / "sent.txt"
    ledger = jobrota.JobLedger(root)
    begun = datetime.now(timezone.utc) - timedelta(hours=1)
    rows, kills, logged, killed = 2000, 20, 0, 0

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(CHILD), str(root), str(sent), "0.5"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    log_many(ledger, range(rows), 50, begun)
    logged = rows
    children = [start(), start()]
    while killed < kills:
        at = chance.randrange(2)
        try:
            children[at].wait(timeout=chance.uniform(0.0, 0.5))  # it may be done before that
        except subprocess.TimeoutExpired:
            children[at].kill()
            killed += 1
        children[at].communicate()
        if not ledger.pending_notifications(limit=1).num_rows:
            log_many(ledger, range(logged, logged + rows), 50, begun)
            logged += rows
        children[at] = start()
    for child in children:
        child.communicate(timeout=300)
        assert child.returncode == 0
    assert ledger.pending_notifications().num_rows == 0

    lines = [line.split() for line in sent.read_text().splitlines()]
    times = Counter(int(number) for _, number in lines)
    assert sorted(times) == list(range(logged)), "every row arrived"
    # What was sent twice is marked, and it is at most a window for each kill.
    repeats = sum(times.values()) - len(times)
    marks = sum("sent again" in (detail or "") for detail in column(ledger.deliveries(), "detail"))
    assert repeats <= marks <= killed * 128
    newest: dict[str, int] = defaultdict(int)
    for job, number in lines:
        assert int(number) >= newest[job], f"{job}: {number} was sent after {newest[job]}"
        newest[job] = int(number)


def test_a_coroutine_whose_time_is_over_does_not_begin(ledger: jobrota.JobLedger) -> None:
    """The first one blocks the event loop for longer than a send can take."""
    begun: list[str] = []

    async def send(file_name: str, job_id: str, status: str) -> bool:
        begun.append(job_id)
        time.sleep(4)
        return True

    notify(ledger, *((job, "SUCCESS") for job in "ABC"))
    report = jobrota.AutosysUpdater(ledger, send, send_timeout=0.3).run()
    assert report.delivered == 0
    time.sleep(6)
    assert len(begun) == 1, "the others never begin"
    assert {outcome for _, _, outcome in outcomes(ledger)} == {"sending", "unknown"}


def test_a_send_that_was_not_waited_for_holds_back_the_next_process(ledger: jobrota.JobLedger) -> None:
    """Ctrl-C while a callable takes longer than a cycle waits at its end."""
    code = """
import os, signal, sys, threading, time, jobrota

def send(file_name, job_id, status):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    jobrota.AutosysUpdater(jobrota.JobLedger(sys.argv[1]), send, lease_ttl=1).run()
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.read()
"""
    notify(ledger, ("A", "RUNNING"), ("A", "SUCCESS"), ("B", "SUCCESS"))
    command = [sys.executable, "-c", code, str(ledger.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "interrupted\n"
        sent = Recorder()
        updater = jobrota.AutosysUpdater(ledger, sent)
        while (report := updater.run()).lease_held_by:
            time.sleep(0.1)
        assert (report.delivered, report.waiting, sent.sent) == (1, 2, [("B", "SUCCESS")])
        process.kill()
    # It has ended, and what ran in it.
    assert updater.run().delivered == 2


# -------------------------------------------------------------------------------------------- order and precedence


def test_failed_row_holds_back_its_job(ledger: jobrota.JobLedger) -> None:
    notify(ledger, ("A", "FAILURE"), ("B", "SUCCESS"), ("A", "SUCCESS"))
    down = Recorder(refuse=["A"])
    report = jobrota.AutosysUpdater(ledger, down).run()
    assert sorted(down.sent) == [("A", "FAILURE"), ("B", "SUCCESS")]
    assert (report.delivered, report.failed, report.pending) == (1, 1, 2)
    up = Recorder()
    jobrota.AutosysUpdater(ledger, up).run()
    assert up.sent == [("A", "FAILURE"), ("A", "SUCCESS")]


def test_500_failed_cycles_keep_rows_and_order(ledger: jobrota.JobLedger) -> None:
    statuses = ["RUNNING", "FAILURE", "SUCCESS"]
    for status in statuses:
        notify(ledger, ("A", status), ("B", status))
    away = jobrota.AutosysUpdater(ledger, refuse_all)
    for _ in range(500):
        report = away.run()
        assert (report.delivered, report.failed, report.pending) == (0, 2, 6)
    back = Recorder()
    assert jobrota.AutosysUpdater(jobrota.JobLedger(ledger.root), back).run().delivered == 6
    for job in "AB":
        assert [status for name, status in back.sent if name == job] == statuses
    attempts = [attempt for job, attempt, outcome in outcomes(ledger) if (job, outcome) == ("A", "delivered")]
    assert attempts == [501, 1, 1]


def test_first_and_priority_jobs(ledger: jobrota.JobLedger) -> None:
    jobs = ["X", "GATE", "Y", "PRIO"]
    notify(ledger, *((job, "SUCCESS") for job in jobs))
    closed = Recorder(refuse=["GATE"])
    options: dict[str, Any] = {"first": ["GATE"], "priority": ["PRIO"], "concurrency": 1}
    report = jobrota.AutosysUpdater(ledger, closed, **options).run()
    assert closed.jobs() == ["GATE"]
    assert (report.held_back, report.failed, report.pending) == (3, 1, 4)
    open_ = Recorder()
    report = jobrota.AutosysUpdater(ledger, open_, **options).run()
    assert open_.jobs() == ["GATE", "PRIO", "X", "Y"]
    assert (report.held_back, report.delivered) == (0, 4)


def test_parked_row_holds_back_its_job(ledger: jobrota.JobLedger) -> None:
    notify(ledger, ("GATE", "NO SUCH STATUS"), ("X", "SUCCESS"))
    updater = jobrota.AutosysUpdater(ledger, jobrota.autosys.SendEvent("/nonexistent"), first=["GATE"])
    report = updater.run()
    assert (report.parked, report.held_back) == (1, 1)
    assert [job for job, _, _ in outcomes(ledger)] == ["GATE"]


# --------------------------------------------------------------------------------------------------- tried again


def test_a_row_that_failed_waits_for_its_time(ledger: jobrota.JobLedger) -> None:
    notify(ledger, ("A", "SUCCESS"), ("A", "RUNNING"), ("B", "SUCCESS"))
    down = Recorder(refuse=["A"])
    backoff = {"first": "1h", "jitter": 0}
    first = jobrota.AutosysUpdater(ledger, down, backoff=backoff).run()
    assert (first.failed, first.delivered, first.waiting) == (1, 1, 0)
    second = jobrota.AutosysUpdater(ledger, down, backoff=backoff).run()
    assert (second.failed, second.waiting, second.pending) == (0, 2, 2)
    assert second.next_try is not None
    failed_at = column(ledger.deliveries(), "attempted_at")
    assert timedelta(0) <= second.next_try - failed_at[0] <= timedelta(hours=1, minutes=1)
    assert down.jobs() == ["A", "B"] or down.jobs() == ["B", "A"]
    # Without the option it is tried at once, and the failures go on counting.
    third = jobrota.AutosysUpdater(ledger, refuse_all, max_attempts=2).run()
    assert (third.parked, third.failed) == (1, 1), "A's second try was its last; the row behind it is tried then"


def test_when_a_row_is_tried_again_is_written_down(ledger: jobrota.JobLedger) -> None:
    notify(ledger, ("A", "SUCCESS"))
    updater = jobrota.AutosysUpdater(ledger, refuse_all, backoff={"first": "1h", "jitter": 0})
    updater.run()
    failed_at = column(ledger.deliveries(), "attempted_at")[0]
    due = jobrota.JobLedger(ledger.root).summary().next_retry
    assert due is not None
    assert timedelta(hours=1) <= due - failed_at <= timedelta(hours=1, minutes=1)
    assert updater.run().next_try == due
    assert f"{due:%Y-%m-%d %H:%M}" in updater._repr_html_()
    jobrota.AutosysUpdater(ledger, refuse_all).run()
    assert ledger.summary().next_retry is None, "the next cycle tries it"


def test_a_row_that_comes_too_late_expires(ledger: jobrota.JobLedger) -> None:
    now = datetime.now(timezone.utc)
    notify(ledger, ("OLD", "SUCCESS"), at=now - timedelta(hours=13))
    notify(ledger, ("NEW", "SUCCESS"), at=now - timedelta(hours=11))
    sent = Recorder()
    report = jobrota.AutosysUpdater(ledger, sent, stale_after="12h").run()
    assert (report.expired, report.delivered, report.pending) == (1, 1, 0)
    assert sent.jobs() == ["NEW"]
    assert ("OLD", 1, "expired") in outcomes(ledger)


def test_a_snooze_window_costs_no_attempt(ledger: jobrota.JobLedger) -> None:
    notify(ledger, ("A", "SUCCESS"))
    sent = Recorder()
    report = jobrota.AutosysUpdater(ledger, sent, snooze="00:00-24:00").run()
    assert report.snoozed_until is not None
    assert report.snoozed_until > datetime.now(timezone.utc)
    assert (report.pending, sent.sent, outcomes(ledger)) == (1, [], [])
    day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][(datetime.now(timezone.utc).weekday() + 3) % 7]
    assert jobrota.AutosysUpdater(ledger, sent, snooze=[f"{day} 00:00-24:00"]).run().delivered == 1


def test_a_limit_of_events_a_second(ledger: jobrota.JobLedger) -> None:
    times: list[float] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        times.append(time.monotonic())
        return True

    notify(ledger, *((f"J{number}", "SUCCESS") for number in range(12)))
    assert jobrota.AutosysUpdater(ledger, send, rate=20).run().delivered == 12
    times.sort()
    assert times[-1] - times[0] >= 11 / 20 * 0.95


def test_callable_refusals_park_after_max_attempts(ledger: jobrota.JobLedger) -> None:
    notify(ledger, ("A", "SUCCESS"))
    for _ in range(30):
        assert jobrota.AutosysUpdater(ledger, refuse_all).run().failed == 1
    report = jobrota.AutosysUpdater(ledger, refuse_all, max_attempts=31).run()
    assert (report.failed, report.parked, report.pending) == (0, 1, 1)
    assert jobrota.AutosysUpdater(ledger, take_all).run().parked == 1, "and does not block other rows"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backoff": {"frist": 1}}, "backoff has no frist"),
        ({"backoff": "soon"}, "must be a number of seconds"),
        ({"backoff": {"jitter": 2}}, "jitter"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": float("nan")}, "rate is NaN"),
        ({"stale_after": 0}, "stale_after is 0"),
        ({"lease_ttl": 0.1}, "lease_ttl"),
        ({"snooze": "always"}, "snooze window"),
        ({"confirm": True}, "confirm needs a transport"),
        ({"first": "GATE"}, "list of texts"),
    ],
)
def test_options_that_can_never_work_are_refused(ledger: jobrota.JobLedger, options: dict[str, Any], text: str) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=text):
        jobrota.AutosysUpdater(ledger, take_all, **options)


# ------------------------------------------------------------------------------------------------ a long history


def test_cycle_without_retry_table(ledger: jobrota.JobLedger) -> None:
    """The table only saves reading: without it, and beside foreign writers, everything goes on as it would with it."""
    notify(ledger, ("A", "SUCCESS"), ("B", "SUCCESS"))
    jobrota.AutosysUpdater(ledger, Recorder(refuse=["A"])).run()
    shutil.rmtree(ledger_path(ledger) / "autosys_retries")
    again = jobrota.JobLedger(ledger.root)
    jobrota.AutosysUpdater(again, refuse_all).run()
    assert [(attempt, outcome) for job, attempt, outcome in outcomes(again) if job == "A"] == [
        (1, "sending"),
        (1, "failed"),
        (2, "sending"),
        (2, "failed"),
    ]
    assert jobrota.AutosysUpdater(again, take_all).run().delivered == 1


def ledger_path(ledger: jobrota.JobLedger) -> Path:
    return Path(str(ledger.root))


# ------------------------------------------------------------------------------------------- run again and again


def test_run_forever_ends_in_order_at_sigterm(tmp_path: Path) -> None:
    code = """
import sys, jobrota

ledger = jobrota.JobLedger(sys.argv[1])

def send(file_name, job_id, status):
    print("under way", flush=True)
    sys.stdin.readline()
    return True

def told(report):
    print("told", report.delivered, report.stopped, flush=True)

report = jobrota.AutosysUpdater(ledger, send).run_forever("1h", on_report=told)
print("ended", report.delivered, flush=True)
"""
    ledger = jobrota.JobLedger(tmp_path / "ledger")
    notify(ledger, ("A", "SUCCESS"), ("B", "SUCCESS"))
    command = [sys.executable, "-c", code, str(tmp_path / "ledger")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.send_signal(signal.SIGTERM)
        # Looks for signals ten times a second; the answer comes after it has seen this one.
        time.sleep(0.5)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "told 1 True\n"
        assert process.stdout.readline() == "ended 1\n"
    assert process.returncode == 0
    assert column(ledger.pending_notifications(), "job_id") == ["B"]
    assert ledger.deliveries().num_rows in (2, 4), "B is not tried, whether or not it was marked"


def test_run_forever_raises_listener_error(ledger: jobrota.JobLedger) -> None:
    reports: list[int] = []

    def told(report: jobrota.DeliveryReport) -> None:
        reports.append(report.delivered)
        if len(reports) == 3:
            raise LookupError("enough")
        notify(ledger, ("A", "SUCCESS"))

    notify(ledger, ("A", "SUCCESS"), ("B", "SUCCESS"))
    with pytest.raises(LookupError, match="enough"):
        jobrota.AutosysUpdater(ledger, take_all).run_forever(timedelta(milliseconds=10), on_report=told)
    assert reports == [2, 1, 1]


def test_async_callables_share_one_event_loop(ledger: jobrota.JobLedger) -> None:
    loops: set[int] = set()
    lock: list[asyncio.Lock] = []

    async def send(file_name: str, job_id: str, status: str) -> bool:
        loops.add(id(asyncio.get_running_loop()))
        lock.append(lock[0] if lock else asyncio.Lock())
        async with lock[0]:
            await asyncio.sleep(0)
        return True

    notify(ledger, *((f"J{number}", "SUCCESS") for number in range(40)))
    assert jobrota.AutosysUpdater(ledger, send).run().delivered == 40
    assert len(loops) == 1


# --------------------------------------------------------------------------------------------------- the command


def test_the_command_delivers_again_and_again_until_sigterm(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path / "ledger")
    notify(ledger, ("A", "SUCCESS"), ("B", "SUCCESS"))
    with jobrota.Sandbox(viya=False) as sandbox:
        command = [sys.executable, "-m", "jobrota", "autosys", "deliver", "--ledger", str(ledger.root)]
        command += ["--sendevent", str(sandbox.sendevent), "--confirm"]
        shown = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
        assert shown.stdout.count("would send: sendevent -E CHANGE_STATUS -s SUCCESS -J") == 2
        assert not sandbox.autosys_events()
        with subprocess.Popen([*command, "--every", "200ms"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("2 delivered")
            notify(ledger, ("C", "SUCCESS"))
            while not process.stdout.readline().startswith("1 delivered"):
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        assert [event["job"] for event in sandbox.autosys_events()][2:] == ["C"]


def test_held_lease_exits_3(ledger: jobrota.JobLedger) -> None:
    under_way, go = threading.Event(), threading.Event()

    def slow(file_name: str, job_id: str, status: str) -> bool:
        under_way.set()
        return go.wait(60)

    notify(ledger, ("A", "SUCCESS"))
    first = threading.Thread(target=jobrota.AutosysUpdater(ledger, slow).run)
    first.start()
    assert under_way.wait(60)
    command = [sys.executable, "-m", "jobrota", "autosys", "deliver", "--ledger", str(ledger.root)]
    second = subprocess.run(command, capture_output=True, text=True)
    go.set()
    first.join()
    assert second.returncode == 3
    assert f":{os.getpid()}/" in second.stderr
    assert ledger.pending_notifications().num_rows == 0


class Answer:
    """The response of an HTTP client, which is true if the request succeeded."""

    def __init__(self, ok: bool) -> None:
        """Succeeded if `ok`."""
        self.ok = ok

    def __bool__(self) -> bool:
        return self.ok


class Undecided:
    """As an array of several values."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_with_a_truth_value_decides(ledger: jobrota.JobLedger, asynchronous: bool) -> None:
    def send(file_name: str, job_id: str, status: str) -> Any:
        return Answer(job_id == "yes") if status == "SUCCESS" else numpy.bool_(job_id == "yes")

    async def send_async(file_name: str, job_id: str, status: str) -> Any:
        return send(file_name, job_id, status)

    notify(ledger, ("yes", "SUCCESS"), ("yes", "FAILURE"), ("no", "SUCCESS"))
    report = jobrota.AutosysUpdater(ledger, send_async if asynchronous else send).run()
    assert (report.delivered, report.failed, report.pending) == (2, 1, 1)
    notify(ledger, ("no", "FAILURE"))
    report = jobrota.AutosysUpdater(ledger, send_async if asynchronous else send, order="none").run()
    assert (report.delivered, report.failed, report.pending) == (0, 2, 2)


@pytest.mark.parametrize(
    "answer", [None, 1, 0, 1.0, numpy.int64(1), "ok", [True], object(), Undecided()], ids=lambda a: type(a).__name__
)
def test_any_other_answer_ends_the_cycle_with_the_row_in_doubt(ledger: jobrota.JobLedger, answer: Any) -> None:
    sent = []

    def send(file_name: str, job_id: str, status: str) -> Any:
        sent.append(job_id)
        return answer

    notify(ledger, ("first", "SUCCESS"), ("second", "SUCCESS"))
    updater = jobrota.AutosysUpdater(ledger, send)
    with pytest.raises(
        jobrota.InvalidInputError, match=f"of type {type(answer).__name__}, .* return True if"
    ) as caught:
        updater.run()
    assert not caught.value.retryable
    assert sent == ["first"]
    attempts = ledger.deliveries()
    assert ("first", "unknown") in zip(column(attempts, "job_id"), column(attempts, "outcome"), strict=True)
    with pytest.raises(jobrota.InvalidInputError, match="return True if"):
        updater.run_forever(every="1ms")
    assert jobrota.AutosysUpdater(ledger, take_all).run().delivered == 2


def test_a_change_data_feed_that_was_switched_on_stops_a_cycle_before_it_sends(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    sent: list[str] = []

    def send(_file_name: str, job_id: str, _status: str) -> bool:
        sent.append(job_id)
        return True

    updater = jobrota.AutosysUpdater(ledger, send)
    properties = {"delta.enableChangeDataFeed": "true"}
    for name in ("autosys_job_log", "job_notifications"):
        table = deltalake.DeltaTable(Path(ledger.root) / name)
        table.alter.set_table_properties(properties)
        with pytest.raises(jobrota.UnsupportedError, match=r"'delta\.enableChangeDataFeed' = 'false'") as refused:
            updater.run()
        assert not refused.value.retryable
        assert (sent, ledger.deliveries().num_rows) == ([], 0)
        table.alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    deltalake.DeltaTable(Path(ledger.root) / "job_notifications").alter.set_table_properties(properties)
    with pytest.raises(jobrota.UnsupportedError, match="changeDataFeed"):
        ledger.acknowledge(ledger.pending_notifications(), table="job_notifications")
    # Rows are still logged and read.
    ledger.log_job_completion("b.sas", "B", "SUCCESS")
    assert column(ledger.pending_notifications(), "job_id") == ["A", "B"]
    deltalake.DeltaTable(Path(ledger.root) / "job_notifications").alter.set_table_properties(
        {"delta.enableChangeDataFeed": "false"}
    )
    assert updater.run().delivered == 2
    assert sent == ["A", "B"]
