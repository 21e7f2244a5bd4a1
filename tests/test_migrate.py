"""`jobrota migrate`: tables that PyPI's deltalake wrote, changing sources, refused rows, legacy files and kills."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

import jobrota
from jobrota import migration, migration_sources, row_counts
from support import rows, run

MOMENT = datetime(2025, 3, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)
TIMES = {"autosys_job_log": "execution_timestamp", "job_notifications": "notification_timestamp"}
NAMES = ("file_name", "job_id", "status", "at", "autosys_update_flag")

Values = tuple[Any, ...]
"""File, job, status, time and flag of one row."""


def made(number: int, flag: str = "NO", job: str | None = None) -> Values:
    return (f"{number % 7}.sas", job or f"JOB{number % 5}", "SUCCESS", MOMENT + timedelta(seconds=number // 3), flag)


def arrow(table: str, values: list[Values], *, zone: str | None = "UTC", extra: bool = False) -> pa.Table:
    columns: dict[str, Any] = {}
    for at, name in enumerate(NAMES):
        column = [row[at] for row in values]
        if name == "at":
            if zone is None:
                column = [moment and moment.replace(tzinfo=None) for moment in column]
            columns[TIMES[table]] = pa.array(column, pa.timestamp("us", tz=zone))
        else:
            columns[name] = pa.array(column, pa.string())
    if extra:
        columns = {"note": pa.array([1] * len(values)), **dict(reversed(columns.items()))}
    return pa.table(columns)


def content(root: str | Path) -> dict[str, Counter[Values]]:
    """The rows of both tables of a root, as deltalake reads them."""
    found = {}
    for table, time in TIMES.items():
        if deltalake.DeltaTable.is_deltatable(f"{root}/{table}"):
            data = deltalake.DeltaTable(f"{root}/{table}").to_pyarrow_table()
            columns = [data[time if name == "at" else name].to_pylist() for name in NAMES]
            aware = [[at and at.replace(tzinfo=timezone.utc) for at in values] for values in columns[3:4]]
            found[table] = Counter(zip(*columns[:3], *aware, columns[4], strict=True))
    return found


def files_below(root: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in root.rglob("*")}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> str:
    return str(tmp_path / "new")


def write(old: Path, values: list[Values], table: str = "autosys_job_log", **options: Any) -> None:
    shape = {name: options.pop(name) for name in ("zone", "extra") if name in options}
    deltalake.write_deltalake(str(old / table), arrow(table, values, **shape), mode="append", **options)


def set_flag(old: Path, predicate: str, table: str = "autosys_job_log", flag: str = "YES") -> None:
    deltalake.DeltaTable(str(old / table)).update({"autosys_update_flag": f"'{flag}'"}, predicate=predicate)


LAYOUTS: dict[str, dict[str, Any]] = {
    "unpartitioned": {},
    "by flag": {"partition_by": ["autosys_update_flag"]},
    "by job and status": {"partition_by": ["job_id", "status"]},
    "times without a zone": {"zone": None},
    "other order and one more column": {"extra": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_copied_exactly(old: Path, new: str, layout: str) -> None:
    values = [made(number, flag) for number in range(20) for flag in ("NO", "YES", "NO", "OTHER")]
    for table in TIMES:
        write(old, values[:50], table, **LAYOUTS[layout])
        write(old, values[50:], table, **LAYOUTS[layout])
    before = files_below(old)

    plan = jobrota.migrate(old, new)
    assert plan.ok
    assert [(table.rows, table.appended) for table in plan.tables] == [(80, 80), (80, 80)]
    assert not Path(new).exists(), "a plan writes nothing"
    copy = jobrota.migrate(old, new, step="copy")
    assert [(table.version, table.rows, table.appended) for table in copy.tables] == [(1, 80, 80), (1, 80, 80)]
    assert [table.left_out for table in copy.tables] == [("note",) if "order" in layout else ()] * 2

    assert content(new) == content(old) == {table: Counter(values) for table in TIMES}
    for table in TIMES:
        layout_now = deltalake.DeltaTable(f"{new}/{table}").metadata()
        assert layout_now.partition_columns == ["autosys_update_flag"]
    again = jobrota.migrate(old, new, step="copy")
    assert [(table.appended, table.acknowledged) for table in again.tables] == [(0, 0), (0, 0)]
    finish = jobrota.migrate(old, new, step="finish")
    assert finish.ok
    assert [table.version for table in finish.tables] == [1, 1]
    assert content(new) == content(old)
    assert files_below(old) == before, "the old tables are only read"


def test_a_second_run_copies_what_came_since_with_flags(old: Path, new: str) -> None:
    # Four identical rows, of which one is acknowledged at first, and three later.
    write(old, [*[made(0)] * 3, made(0, "YES"), made(1), made(2)])
    jobrota.migrate(old, new, step="copy")
    write(old, [*[made(0, "YES")] * 2, made(3), made(4, "YES")])
    set_flag(old, "job_id = 'JOB2'")
    deltalake.DeltaTable(str(old / "autosys_job_log")).optimize.compact()
    plan = jobrota.migrate(old, new).tables[0]
    assert (plan.appended, plan.acknowledged) == (4, 1)
    copy = jobrota.migrate(old, new, step="copy").tables[0]
    assert (copy.appended, copy.acknowledged) == (4, 1)
    assert content(new) == content(old)
    deltalake.write_deltalake(
        str(old / "autosys_job_log"),
        arrow("autosys_job_log", [made(0), *[made(0, "YES")] * 5, made(1), made(2, "YES"), made(3), made(4, "YES")]),
        mode="overwrite",
    )
    copy = jobrota.migrate(old, new, step="copy").tables[0]
    assert (copy.appended, copy.acknowledged) == (0, 2)
    assert content(new) == content(old)


def test_what_is_acknowledged_in_the_new_ledger_stays_so(old: Path, new: str) -> None:
    write(old, [made(0), made(0), made(1), made(2)])
    jobrota.migrate(old, new, step="copy")
    ledger = jobrota.JobLedger(new)
    ledger.acknowledge(ledger.pending_executions(limit=3), table="autosys_job_log")
    set_flag(old, "job_id = 'JOB1'")
    write(old, [made(0)])
    ledger.log_job_execution("own.sas", "OWN", "SUCCESS", execution_timestamp=MOMENT)
    copy = jobrota.migrate(old, ledger, step="copy")
    assert copy.ok
    assert (copy.tables[0].appended, copy.tables[0].acknowledged, copy.tables[0].ahead) == (1, 0, 2)
    flags = Counter((row[1], row[4]) for row in content(new)["autosys_job_log"].elements())
    assert flags == Counter(
        {("JOB0", "YES"): 2, ("JOB0", "NO"): 1, ("JOB1", "YES"): 1, ("JOB2", "NO"): 1, ("OWN", "NO"): 1}
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_changes_and_runs_ends_with_the_same_rows(old: Path, new: str, seed: int) -> None:
    """Rows are added, acknowledged, compacted and rewritten between runs; few different rows, so many are identical."""
    dice = random.Random(seed)
    write(old, [made(dice.randrange(9), dice.choice(["NO", "YES"])) for _ in range(dice.randrange(1, 12))])
    for _ in range(8):
        action = dice.choice(["add", "add", "acknowledge", "compact", "own", "copy", "copy"])
        if action == "add":
            write(old, [made(dice.randrange(9), dice.choice(["NO", "NO", "YES"])) for _ in range(dice.randrange(1, 9))])
        elif action == "acknowledge":
            set_flag(old, f"job_id = 'JOB{dice.randrange(5)}'")
        elif action == "compact":
            deltalake.DeltaTable(str(old / "autosys_job_log")).optimize.compact()
        elif action == "own":
            source = jobrota.JobLedger(str(old))
            pending = source.pending_executions(limit=dice.randrange(1, 4))
            source.acknowledge(pending, table="autosys_job_log")
        else:
            jobrota.migrate(old, new, step="copy")
            assert content(new) == content(old)
    jobrota.migrate(old, new, step="copy")
    assert content(new) == content(old)
    assert jobrota.migrate(old, new, step="finish").ok


CHILD = """
import os, signal, sys
import jobrota
from jobrota import migration, migration_sources, row_counts

old, new, writes, when = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
migration._BATCH = 10
log, left = migration._log, [writes]

def counted(ledger, table, rows):
    if when == "before" and left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    done = log(ledger, table, rows)
    left[0] -= 1
    if when == "after" and left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

migration._log = counted
print("started", flush=True)
jobrota.migrate(old, new, step="copy")
"""


def child(old: Path, new: str, writes: int, when: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, str(old), new, str(writes), when]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_between_commits_is_continued(old: Path, new: str, when: str) -> None:
    values = [made(number // 2, "YES" if number % 3 else "NO") for number in range(60)]
    write(old, values)
    for writes in (1, 2):
        with child(old, new, writes, when) as killed:
            killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        there = content(new)["autosys_job_log"].total()
        assert 0 < there < 60
    assert jobrota.migrate(old, new, step="copy").tables[0].appended == 60 - there
    assert content(new) == content(old)


def test_a_run_that_is_killed_at_any_moment_is_continued(old: Path, new: str) -> None:
    dice = random.Random(7)
    write(old, [made(number // 2, "YES" if number % 3 else "NO") for number in range(600)])
    killed = 0
    for attempt in range(12):
        with child(old, new, 10_000, "never") as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"started\n"
            try:
                running.wait(dice.uniform(0.005, 0.12))
            except subprocess.TimeoutExpired:
                running.kill()
                killed += 1
        set_flag(old, f"file_name = '{attempt % 7}.sas' AND job_id = 'JOB{attempt % 5}'")
        write(old, [made(attempt)] * 3)
    assert killed
    jobrota.migrate(old, new, step="copy")
    assert content(new) == content(old)
    assert jobrota.migrate(old, new, step="finish").ok


def test_a_source_can_be_written_during_the_runs(old: Path, new: str) -> None:
    source = jobrota.JobLedger(str(old))
    source.log_job_execution("first.sas", "FIRST", "SUCCESS")
    stop = threading.Event()

    def log() -> None:
        number = 0
        while not stop.is_set():
            source.log_job_execution(f"{number}.sas", "JOB", "SUCCESS", execution_timestamp=MOMENT)
            source.log_job_completion(f"{number % 3}.sas", "JOB", "SUCCESS", notification_timestamp=MOMENT)
            if number % 5 == 0:
                source.acknowledge(source.pending_notifications(limit=2))
            number += 1

    writer = threading.Thread(target=log)
    writer.start()
    try:
        copied = [sum(table.appended for table in jobrota.migrate(old, new, step="copy").tables) for _ in range(8)]
    finally:
        stop.set()
        writer.join()
    assert sum(count > 0 for count in copied) > 1
    jobrota.migrate(old, new, step="copy")
    assert content(new) == content(old)
    assert jobrota.migrate(old, new, step="finish").ok


def test_finish_says_what_differs(old: Path, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(old, [made(0), made(0), made(1), made(2), made(3, "YES")])
    jobrota.migrate(old, new, step="copy")
    write(old, [made(7)])
    set_flag(old, "job_id = 'JOB1'")
    ledger = jobrota.JobLedger(new)
    ledger.log_job_execution("own.sas", "OWN", "SUCCESS", execution_timestamp=MOMENT)
    ledger.acknowledge(arrow("autosys_job_log", [made(2)]), table="autosys_job_log")
    before = files_below(Path(new))
    report = jobrota.migrate(old, new, step="finish")
    assert files_below(Path(new)) == before, "it only reads"
    table = report.tables[0]
    assert (table.missing, table.extra, table.acknowledged, table.ahead) == (1, 1, 1, 1)
    assert table.problems == [
        "autosys_job_log: 1 rows of the source are not in the new ledger",
        "autosys_job_log: 1 rows are only in the new ledger",
        "autosys_job_log: 2 rows have another flag in the new ledger",
    ]
    found = {
        row["job_id"]: (row["source_flags"], row["target_flags"]) for row in table.examples if row["job_id"] != "JOB2"
    }
    assert found == {"JOB1": ({"YES": 1}, {"NO": 1}), "OWN": ({}, {"NO": 1})}
    assert run("migrate", old, "--ledger", new, "--finish") == 1
    printed = capsys.readouterr().out
    assert "1 rows are only in the new ledger" in printed
    assert "source: none; new ledger: 1 NO" in printed


def test_finish_fails_while_the_source_is_written(old: Path, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(old, [made(0)])
    jobrota.migrate(old, new, step="copy")
    compare = row_counts.differences

    def slow(*tables: Any) -> Iterator[Any]:
        yield from compare(*tables)
        write(old, [made(1)])

    monkeypatch.setattr(migration, "differences", slow)
    report = jobrota.migrate(old, new, step="finish")
    assert report.tables[0].problems == [
        "autosys_job_log: the source went from version 0 to 1 while it was compared: stop its writers"
    ]


def test_finish_reads_twice_where_the_version_is_not_known(
    old: Path, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a remote store."""
    write(old, [made(0)])
    jobrota.migrate(old, new, step="copy")
    monkeypatch.setattr(migration_sources, "_local", lambda location: None)
    report = jobrota.migrate(old, new, step="finish")
    assert (report.ok, report.tables[0].version) == (True, None)
    compare = row_counts.differences

    def slow(*tables: Any) -> Iterator[Any]:
        yield from compare(*tables)
        write(old, [made(1)])

    monkeypatch.setattr(migration, "differences", slow)
    report = jobrota.migrate(old, new, step="finish")
    assert report.tables[0].problems == ["autosys_job_log: the source changed while it was compared: stop its writers"]
    with pytest.raises(jobrota.NotFoundError, match="a version that is not known, not at 3"):
        jobrota.migrate(old, new, versions={"autosys_job_log": 3})


def test_a_version_can_be_named(old: Path, new: str) -> None:
    write(old, [made(0)])
    write(old, [made(1)])
    jobrota.migrate(old, new, step="copy")
    assert jobrota.migrate(old, new, step="finish", versions={"autosys_job_log": 1}).ok
    with pytest.raises(jobrota.NotFoundError, match="at version 1, not at 0"):
        jobrota.migrate(old, new, step="finish", versions={"autosys_job_log": 0})
    assert run("migrate", old, "--ledger", new, "--finish", "--source-version", "autosys_job_log=1") == 0
    assert run("migrate", old, "--ledger", new, "--finish", "--source-version", "autosys_job_log=5") == 1
    assert run("migrate", old, "--ledger", new, "--finish", "--source-version", "autosys_job_log=x") == 2


def test_rows_that_a_ledger_refuses_are_listed_and_the_others_copied(
    old: Path, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [made(number) for number in range(30)]
    bad: list[Values] = [
        ("a.sas", None, "SUCCESS", MOMENT, "NO"),
        (None, "A", "SUCCESS", MOMENT, "NO"),
        ("a.sas", "A", "", MOMENT, "NO"),
        ("a.sas", "A", "SUCCESS", None, "YES"),
        ("a.sas", "A", "SUCCESS", MOMENT, None),
        ("a.sas", "A", "SUCCESS", MOMENT, "x" * 80),
    ]
    write(old, [*good[:10], *bad, *good[10:]])
    for step in ("plan", "copy", "copy"):
        report = jobrota.migrate(old, new, step=step)
        assert not report.ok
        assert report.tables[0].refused == len(bad)
        reasons = sorted(str(row["reason"]) for row in report.tables[0].examples)
        assert len(reasons) == len(bad)
        assert any("job_id" in reason and "no value" in reason for reason in reasons)
    assert content(new)["autosys_job_log"] == Counter(good)
    finish = jobrota.migrate(old, new, step="finish")
    assert finish.tables[0].missing == len(bad)
    assert run("migrate", old, "--ledger", new, "--copy") == 1
    assert "a ledger does not take 6 of the rows" in capsys.readouterr().out


def test_another_flag_of_a_copied_row_is_a_problem(old: Path, new: str) -> None:
    write(old, [made(0), made(1)])
    jobrota.migrate(old, new, step="copy")
    set_flag(old, "job_id = 'JOB1'", flag="SKIP")
    copy = jobrota.migrate(old, new, step="copy")
    assert not copy.ok
    assert (copy.tables[0].stuck, copy.tables[0].appended) == (1, 0)
    assert content(new)["autosys_job_log"] == Counter([made(0), made(1)])


def test_two_migrations_at_once_are_found(old: Path, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(old, [made(0), made(1)])
    log = migration._log

    def twice(ledger: jobrota.JobLedger, table: str, values: list[Any]) -> int:
        log(ledger, table, values)
        return log(ledger, table, values)

    monkeypatch.setattr(migration, "_log", twice)
    report = jobrota.migrate(old, new, step="copy")
    assert report.tables[0].problems == [
        "autosys_job_log: 2 rows were written twice, because two migrations ran at once"
    ]


def records(folder: Path, name: str, *jobs: str) -> None:
    folder.mkdir(exist_ok=True)
    lines = [
        {"file_name": "a.sas", "jobName": job, "status": "SUCCESS", "timestamp": "2025-03-01T12:30:00"} for job in jobs
    ]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_legacy_files_alone(tmp_path: Path, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "legacy"
    records(folder, "a.json", "A", "B")
    options = ["--json-folder", folder, "--field", "job_id=jobName", "--timezone", "Europe/Berlin", "--ledger", new]
    assert run("migrate", *options) == 0
    assert not Path(new).exists()
    assert run("migrate", *options, "--finish") == 1
    assert run("migrate", *options, "--copy") == 0
    records(folder, "b.json", "C")
    assert run("migrate", *options, "--copy") == 0
    assert run("migrate", *options, "--finish") == 0
    assert sorted(row[1] for row in content(new)["job_notifications"].elements()) == ["A", "B", "C"]
    (folder / "c.json").write_text("{")
    assert run("migrate", *options, "--copy") == 1
    assert "c.json" in capsys.readouterr().out


def test_legacy_files_beside_tables(old: Path, tmp_path: Path, new: str) -> None:
    """A record can be equal to a row of the table: both are events."""
    folder = tmp_path / "legacy"
    records(folder, "a.json", "A", "B", "B")
    same = ("a.sas", "A", "SUCCESS", datetime(2025, 3, 1, 12, 30, tzinfo=timezone.utc), "NO")
    write(old, [same, made(0)], "job_notifications")
    given: dict[str, Any] = {"json_folder": folder, "fields": {"job_id": "jobName"}}
    for _ in range(2):
        copy = jobrota.migrate(old, new, step="copy", timezone="UTC", **given)
        assert copy.ok
        assert jobrota.migrate(old, new, step="finish", timezone="UTC", **given).ok
        expected = Counter({same: 2, (*same[:1], "B", *same[2:]): 2, made(0): 1})
        assert content(new)["job_notifications"] == expected
    # Imported records stay as they are, and are not taken for new ones, in another time zone.
    jobrota.migrate(old, new, step="copy", timezone="Europe/Berlin", **given)
    assert content(new)["job_notifications"] == expected
    # The table goes on.
    set_flag(old, "job_id = 'JOB0'", "job_notifications")
    write(old, [made(5)], "job_notifications")
    jobrota.migrate(old, new, step="copy", timezone="UTC", **given)
    assert content(new)["job_notifications"] == expected - Counter([made(0)]) + Counter([made(0, "YES"), made(5)])
    assert jobrota.migrate(old, new, step="finish", timezone="UTC", **given).ok


def test_what_cannot_be_migrated(old: Path, new: str, tmp_path: Path) -> None:
    write(old, [made(0)])
    with pytest.raises(jobrota.InvalidInputError, match="a table of the new ledger"):
        jobrota.migrate(old, f"file://{old}/", step="copy")
    with pytest.raises(jobrota.NotFoundError, match="has no table autosys_job_log or job_notifications"):
        jobrota.migrate(tmp_path / "none", new)
    with pytest.raises(jobrota.InvalidInputError, match="nothing to migrate"):
        jobrota.migrate(None, new)
    with pytest.raises(jobrota.InvalidInputError, match="no table of a ledger"):
        jobrota.migrate(old, new, versions={"vm": 1})
    with pytest.raises(jobrota.InvalidInputError, match="give the session as spark="):
        jobrota.migrate(None, new, tables={"autosys_job_log": "main.log"})
    with pytest.raises(jobrota.InvalidInputError, match="give plan, copy or finish"):
        jobrota.migrate(old, new, step="run")  # type: ignore[arg-type]
    assert run("migrate", old) == 2
    assert not Path(new).exists()


def test_the_command_prints_text_json_or_nothing(old: Path, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(old, [made(0), made(1)], extra=True)
    assert run("migrate", old, "--ledger", new) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"from {old} to {new}: nothing was written; --copy writes this:",
        "table            version  rows  to copy  to acknowledge  refused",
        "autosys_job_log        0     2        2               0        0",
        "autosys_job_log: not copied: the columns note",
    ]
    assert run("migrate", old, "--ledger", new, "--copy", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert run("migrate", old, "--ledger", new, "--finish", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ok"], printed["step"], printed["tables"][0]["version"]) == (True, "finish", 0)
    assert run("migrate", old, "--ledger", new, "--finish", "--copy") == 2


def test_the_report_in_a_notebook(old: Path, new: str) -> None:
    write(old, [made(0, job="<b>"), (None, None, None, None, None)])
    html = jobrota.migrate(old, new, step="finish")._repr_html_()
    assert "Migration" in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_the_async_twin(old: Path, new: str) -> None:
    write(old, [made(0)])
    report = asyncio.run(jobrota.migrate_async(old, new, step="copy"))
    assert report.tables[0].appended == 1
    assert rows(jobrota.JobLedger(new).executions()) != []


def test_no_connection_of_the_environment_is_needed(old: Path, new: str) -> None:
    """It needs neither deltalake nor pyarrow nor pyspark."""
    write(old, [made(0)])
    code = (
        "import sys\n"
        "for name in ('deltalake', 'pyarrow', 'pyspark', 'pandas', 'numpy'): sys.modules[name] = None\n"
        "import jobrota; print(jobrota.migrate(sys.argv[1], sys.argv[2], step='copy').ok)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(old), new], capture_output=True, check=True, env=os.environ)
    assert done.stdout == b"True\n"
