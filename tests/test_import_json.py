"""Legacy JSON files through the wheel: from Python, from the command, with kills, and in several processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import jobrota
from support import column, rows, run

BERLIN = ZoneInfo("Europe/Berlin")


def record(job: str, **fields: Any) -> dict[str, Any]:
    """The record of the issue, of this job."""
    fixed = {"file_name": "data_file_001.csv", "status": "SUCCESS", "timestamp": "2025-04-16T09:01:05"}
    return fixed | {"job_id": job} | fields


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "legacy"
    folder.mkdir()
    return folder


def jobs(ledger: jobrota.JobLedger) -> list[str]:
    return sorted(column(ledger.notifications(), "job_id"))


def test_all_shapes_become_rows(ledger: jobrota.JobLedger, folder: Path) -> None:
    (folder / "1.json").write_text(json.dumps(record("JOB_A")))
    (folder / "2.json").write_text(json.dumps([record("JOB_B"), record("JOB_C")], indent=2))
    (folder / "3.jsonl").write_text("".join(json.dumps(record(f"JOB_{name}")) + "\n" for name in "DE"))
    report = ledger.import_json(folder, timezone="Europe/Berlin")
    assert (report.files, report.imported, report.known, report.bad, report.rows) == (3, 3, 0, 0, 5)
    assert report.folder == folder
    moment = datetime(2025, 4, 16, 7, 1, 5, tzinfo=timezone.utc)
    assert rows(ledger.pending_notifications())[0] == ("data_file_001.csv", "JOB_A", "SUCCESS", "NO", moment)
    assert jobs(ledger) == [f"JOB_{name}" for name in "ABCDE"]
    again = jobrota.JobLedger(ledger.root).import_json(str(folder), timezone=BERLIN)
    assert (again.files, again.imported, again.known, again.rows) == (3, 0, 3, 0)


def test_names_are_mapped_and_offsets_need_no_timezone(ledger: jobrota.JobLedger, folder: Path) -> None:
    theirs = {"file_name": "a.csv", "jobName": "A", "status": "FAILURE", "time": "2025-04-16T09:01:05.5Z", "host": "x"}
    (folder / "a.json").write_text(json.dumps(theirs))
    assert ledger.import_json(folder, fields={"job_id": "jobName", "timestamp": "time"}).rows == 1
    assert column(ledger.notifications(), "notification_timestamp") == [
        datetime(2025, 4, 16, 9, 1, 5, 500_000, tzinfo=timezone.utc)
    ]


def test_what_is_delivered_is_delivered_once(ledger: jobrota.JobLedger, folder: Path) -> None:
    (folder / "a.jsonl").write_text(json.dumps(record("A")) + "\n" + json.dumps(record("B", autosys_update_flag="YES")))
    sent: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append(job_id)
        return True

    for _ in range(2):
        ledger.import_json(folder, timezone="UTC")
        jobrota.AutosysUpdater(ledger, send).run()
    assert sent == ["A"]


def test_bad_files_are_listed_and_the_others_imported(ledger: jobrota.JobLedger, folder: Path) -> None:
    (folder / "good.json").write_text(json.dumps(record("A")))
    (folder / "half.json").write_text(json.dumps(record("B"))[:30])
    (folder / "lines.jsonl").write_text(json.dumps(record("C")) + "\n{}\n")
    (folder / "empty.json").touch()
    report = ledger.import_json(folder, timezone="UTC")
    assert (report.rows, report.imported, report.bad, report.bad_records) == (2, 2, 2, 2)
    assert report.ignored == {"empty": 1}
    assert [(row["file"], row["line"], row["record"]) for row in report.failures] == [
        ("half.json", 1, 1),
        ("lines.jsonl", 2, 2),
    ]
    assert "still being written" in report.failures[0]["reason"]
    assert report.to_dict()["failures"] == report.failures
    assert json.loads(json.dumps(report.to_dict()))["rows"] == 2
    assert repr(report) == "ImportReport(files=3, imported=2, known=0, bad=2, rows=2)"


def test_in_a_notebook_names_and_reasons_are_escaped(ledger: jobrota.JobLedger, folder: Path) -> None:
    (folder / "<script>.json").write_text(json.dumps(record("A", status="<b>", autosys_update_flag="<i>")))
    html = ledger.import_json(folder, timezone="UTC")._repr_html_()
    assert "Import of legacy JSON files" in html
    assert "&lt;script&gt;.json" in html
    assert "<script>" not in html
    assert "<i>" not in html


def test_a_notebook_is_not_buried_in_failures(ledger: jobrota.JobLedger, folder: Path) -> None:
    for number in range(200):
        (folder / f"{number:03}.json").write_text("{")
    report = ledger.import_json(folder)
    assert len(report.failures) == 200
    html = report._repr_html_()
    assert "049.json" in html
    assert "050.json" not in html
    assert "150" in html


def test_the_async_twin(ledger: jobrota.JobLedger, folder: Path) -> None:
    for name in "ABC":
        (folder / f"{name}.json").write_text(json.dumps(record(name)))

    async def together() -> int:
        twins = (ledger.import_json_async(folder, timezone="UTC") for _ in range(4))
        return sum([report.rows for report in await asyncio.gather(*twins)])

    assert asyncio.run(together()) == 3
    assert jobs(ledger) == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fields": {"job": "x"}}, "file_name, job_id, status, timestamp, autosys_update_flag"),
        ({"fields": {"job_id": 1}}, "job_id"),
        ({"fields": {1: "job_id"}}, "a key is of type int"),
        ({"fields": ["job_id"]}, "dict"),
        ({"fields": {"job_id": ""}}, "empty"),
        ({"timezone": "Europe/Atlantis"}, "IANA"),
        ({"timezone": 7}, "timezone"),
        ({"timezone": timezone.utc}, "timezone"),
    ],
)
def test_options_that_cannot_work_are_refused(
    ledger: jobrota.JobLedger, folder: Path, options: dict[str, Any], says: str
) -> None:
    (folder / "a.json").write_text(json.dumps(record("A")))
    with pytest.raises(jobrota.InvalidInputError, match=says):
        ledger.import_json(folder, **options)
    assert not Path(ledger.root).exists()


def test_folders_that_are_none_are_refused(ledger: jobrota.JobLedger, folder: Path) -> None:
    file = folder / "a.json"
    file.write_text(json.dumps(record("A")))
    nothing: list[Any] = ["", folder / "none", file, "s3://bucket/legacy", None, 7, "nul\0"]
    for wrong in nothing:
        with pytest.raises(jobrota.InvalidInputError):
            ledger.import_json(wrong)
        with pytest.raises(jobrota.InvalidInputError):
            asyncio.run(awaited(ledger, wrong))
    assert not Path(ledger.root).exists()


async def awaited(ledger: jobrota.JobLedger, folder: Any) -> None:
    await ledger.import_json_async(folder)


def test_folders_and_files_of_any_name(ledger: jobrota.JobLedger, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff odd %41"))
    folder.mkdir()
    (folder / os.fsdecode(b"\xfe.json")).write_text(json.dumps(record("A")))
    for expected in (1, 0):
        report = ledger.import_json(folder, timezone="UTC")
        assert report.rows == expected
        assert report.folder == folder
    assert json.dumps(report.to_dict())


# ------------------------------------------------------------------------------------------------- processes

CHILD = """
import sys
import jobrota
root, folders = sys.argv[1], sys.argv[2:]
ledger = jobrota.JobLedger(root)
print("ready", flush=True)
for folder in folders:
    print(ledger.import_json(folder, timezone="UTC").rows, flush=True)
"""


def child(root: Path, folders: list[Path]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(root), *map(str, folders)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def many_folders(tmp_path: Path, folders: int, files: int) -> tuple[list[Path], list[str]]:
    made = [tmp_path / f"legacy-{number:02}" for number in range(folders)]
    names = []
    for folder in made:
        folder.mkdir()
        for number in range(files):
            name = f"{folder.name}-{number}"
            text = json.dumps(record(name)) + "\n" + json.dumps(record(name)) + "\n"  # two events that look the same
            (folder / f"{number}.jsonl").write_text(text)
            names += [name, name]
    return made, sorted(names)


def test_processes_at_once_import_each_record_once(tmp_path: Path) -> None:
    folders, expected = many_folders(tmp_path, 10, 8)
    processes = [child(tmp_path / "ledger", folders) for _ in range(4)]
    counted = 0
    for process in processes:
        out, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        counted += sum(map(int, out.split()))
    assert counted == len(expected)
    assert jobs(jobrota.JobLedger(tmp_path / "ledger")) == expected


def test_killed_at_any_moment_each_record_is_imported_once(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    folders, expected = many_folders(tmp_path, 20, 4)
    with child(tmp_path / "measured", folders) as process:
        started = time.monotonic()
        assert process.wait(timeout=60) == 0
        allowed = time.monotonic() - started
    kills = 0
    for number in range(5):
        ledger = tmp_path / f"ledger-{number}"
        for _ in range(5):
            with child(ledger, folders) as process:
                try:
                    process.wait(timeout=moments.uniform(0, allowed))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
        with child(ledger, folders) as process:
            assert process.wait(timeout=60) == 0
        assert jobs(jobrota.JobLedger(ledger)) == expected
    print(f"{kills} of 25 were killed")
    assert kills >= 5


# ----------------------------------------------------------------------------------------------- the command


def test_the_command_imports_and_shows(
    ledger: jobrota.JobLedger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"file": "a.csv", "job": "A", "status": "S", "timestamp": "2025-04-16 09:01"}
    (folder / "a.json").write_text(json.dumps(theirs))
    (folder / "notes.txt").touch()
    options = ["--ledger", ledger.root, "--field", "job_id=job", "--field", "file_name=file"]
    options += ["--timezone", "Asia/Kolkata"]
    assert run("ledger", "import", folder, *options) == 0
    shown = capsys.readouterr().out
    assert "1 file: 1 row from 1 of them, 0 already known, 0 with errors" in shown
    assert "ignored: 1 not .json" in shown
    (folder / "[red]b\x1b.json").write_text("{}")
    assert run("ledger", "import", folder, *options) == 1
    shown = capsys.readouterr().out
    assert "[red]b\N{REPLACEMENT CHARACTER}.json" in shown
    assert "\x1b" not in shown
    assert run("ledger", "import", folder, *options, "--json") == 1
    assert json.loads(capsys.readouterr().out)["known"] == 1
    assert run("ledger", "status", "--ledger", ledger.root) == 0
    shown = capsys.readouterr().out
    assert "job_notifications" in shown
    assert "2025-04-16T03:31:00Z" in " ".join(shown.split())
    assert run("ledger", "status", "--ledger", ledger.root, "--json") == 0
    assert json.loads(capsys.readouterr().out)["notifications"]["pending"] == 1


def test_the_command_says_what_cannot_work(
    ledger: jobrota.JobLedger, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ledger", "import", folder / "none", "--ledger", ledger.root) == 2
    assert "none" in capsys.readouterr().err
    assert run("ledger", "import", folder, "--ledger", ledger.root, "--timezone", "Mars") == 2
    assert "Mars" in capsys.readouterr().err
    assert run("ledger", "import", folder) == 2
    assert "--ledger" in capsys.readouterr().err
    assert run("ledger", "import", folder, "--ledger", ledger.root, "--field", "job_id") == 2
    assert "OURS=THEIRS" in capsys.readouterr().err
