"""Maintenance from Python: every client reads the same rows before and after it, and the report is right."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import warnings
from pathlib import Path

import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.transaction import AddAction, RemoveAction

import jobrota
from jobrota.cli import main
from support import column

DAY = 24 * 3600


def log_rows(ledger: jobrota.JobLedger, count: int) -> None:
    for number in range(count):
        ledger.log_job_execution(f"{number:03}.sas", "PROD.AE", "SUCCESS")


def make_older(directory: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def wait_for_checkpoint(ledger: jobrota.JobLedger, version: int) -> None:
    """Checkpoints are written in the background."""
    hint = Path(ledger.root) / "autosys_job_log" / "_delta_log" / "_last_checkpoint"
    limit = time.monotonic() + 30
    while not hint.exists() or json.loads(hint.read_text())["version"] < version:
        assert time.monotonic() < limit, f"no checkpoint of version {version}"
        time.sleep(0.01)


def test_a_checkpoint_of_many_megabytes_is_written(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    log_rows(ledger, 1)
    table = DeltaTable(tmp_path / "autosys_job_log")
    # Random text is as large in a checkpoint as here: 15 MB, and above 10 MB files are written in parts.
    rng = random.Random(7)
    adds: list[AddAction | RemoveAction] = [
        AddAction(
            path=f"autosys_update_flag=YES/{number}.parquet",
            size=1,
            partition_values={"autosys_update_flag": "YES"},
            modification_time=number,
            data_change=True,
            stats=json.dumps({"numRecords": 0, "minValues": {"job_id": rng.randbytes(150_000).hex()}}),
        )
        for number in range(50)
    ]
    table.create_write_transaction(adds, "append", table.schema(), ["autosys_update_flag"])
    log_rows(ledger, 18)
    wait_for_checkpoint(ledger, 20)
    checkpoint = next((tmp_path / "autosys_job_log" / "_delta_log").glob("*.checkpoint.parquet"))
    assert checkpoint.stat().st_size > 11_000_000
    assert jobrota.JobLedger(tmp_path).fetch_unprocessed_updates().num_rows == 19


def files_read_by_deltalake(ledger: jobrota.JobLedger, version: int | None = None) -> list[str]:
    """What the other client reads: file names of all rows."""
    table = DeltaTable(Path(ledger.root) / "autosys_job_log", version=version)
    found = QueryBuilder().register("t", table).execute("select file_name from t order by 1").read_all()
    return [str(name) for name in column(Table.from_arrow(found), "file_name")]


def executions(files: list[str], flag: str) -> Table:
    """Rows of `autosys_job_log` as another client writes them."""
    moments = Array([1_790_000_000_000_000] * len(files), DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    texts = {"job_id": "PROD.AE", "status": "SUCCESS", "autosys_update_flag": flag}
    columns = {name: Array([text] * len(files), DataType.string()) for name, text in texts.items()}
    names = ["file_name", "job_id", "execution_timestamp", "status", "autosys_update_flag"]
    columns |= {"file_name": Array(files, DataType.string()), "execution_timestamp": moments}
    return Table.from_pydict({name: columns[name] for name in names})


def test_every_client_reads_same_rows(ledger: jobrota.JobLedger) -> None:
    log_rows(ledger, 50)
    ledger.update_autosys_flag("007.sas", "PROD.AE")
    before, order = files_read_by_deltalake(ledger), column(ledger.executions(), "file_name")
    report = ledger.maintain()
    assert report.problems == []
    (table,) = report.tables
    assert table["table"] == "autosys_job_log"
    assert table["files_before"] == 50
    assert table["files_after"] == 2 - (report.files_compacted == 50)
    assert report.files_compacted == table["files_compacted"] >= 49
    assert table["rows_compacted"] >= 49
    assert table["checkpoint"] == table["version"]
    assert report.files_vacuumed == 0, "within the retention, older versions stay readable"
    assert files_read_by_deltalake(ledger) == before
    assert column(ledger.executions(), "file_name") == order
    assert len(files_read_by_deltalake(ledger, version=30)) == 30


def test_every_client_uses_a_cleaned_log(ledger: jobrota.JobLedger) -> None:
    log_rows(ledger, 70)
    long_lived = jobrota.JobLedger(ledger.root)
    assert long_lived.fetch_unprocessed_updates().num_rows == 70
    wait_for_checkpoint(ledger, 60)
    make_older(Path(ledger.root), days=30)
    report = ledger.maintain()
    assert report.problems == []
    assert report.log_entries_removed >= 40
    log = Path(ledger.root) / "autosys_job_log" / "_delta_log"
    assert not (log / f"{0:020}.json").exists()
    assert len(files_read_by_deltalake(ledger)) == 70
    write_deltalake(DeltaTable(log.parent), executions(["other.sas"], "NO"), mode="append")
    log_rows(long_lived, 1)
    assert ledger.update_autosys_flag("other.sas", "PROD.AE") == 1
    assert long_lived.update_autosys_flag("003.sas", "PROD.AE") == 1
    assert len(files_read_by_deltalake(ledger)) == ledger.executions().num_rows == 72


def test_unneeded_files_are_deleted(ledger: jobrota.JobLedger) -> None:
    log_rows(ledger, 10)
    directory = Path(ledger.root) / "autosys_job_log"
    assert len(list(directory.glob("*/*.parquet"))) == 10
    make_older(directory, days=30)
    report = ledger.maintain(retain_hours=0)
    assert report.files_compacted == report.files_vacuumed == 10
    assert report.bytes_freed > 0
    assert len(list(directory.glob("autosys*/*.parquet"))) == report.tables[0]["files_after"] == 1
    assert len(files_read_by_deltalake(ledger)) == 10
    again = ledger.maintain(retain_hours=0)
    assert (again.files_compacted, again.files_vacuumed) == (0, 0)


def test_tables_of_other_clients_are_maintained(tmp_path: Path) -> None:
    """With awkward partition values as deltalake spells them, and a longer retention."""
    root = tmp_path / "root"
    root.mkdir()
    flags = ["NO", "YES", "a/b %20 ü", ""]
    for number in range(20):
        write_deltalake(
            root / "autosys_job_log",
            executions([f"{number:02}"], flags[number % 4]),
            mode="append",
            partition_by=["autosys_update_flag"],
            configuration={"delta.deletedFileRetentionDuration": "interval 30 days"} if number == 0 else None,
        )
    ledger = jobrota.JobLedger(root)
    before = files_read_by_deltalake(ledger)
    make_older(root, days=20)
    report = ledger.maintain(retain_hours=0)
    assert report.problems == []
    assert report.files_compacted == 20
    assert report.files_vacuumed == 0
    assert any("720 hours" in note for note in report.tables[0]["notes"])
    assert files_read_by_deltalake(ledger) == before
    assert sorted(column(ledger.executions(), "file_name")) == before


def test_retentions_are_checked(ledger: jobrota.JobLedger) -> None:
    with pytest.raises(jobrota.NotFoundError):
        ledger.maintain()
    log_rows(ledger, 1)
    for refused in (-1.0, float("nan"), float("inf")):
        with pytest.raises(jobrota.InvalidInputError):
            ledger.maintain(retain_hours=refused)
    assert ledger.maintain(retain_hours=0).problems == []


def test_maintenance_can_be_awaited_and_shows_itself(ledger: jobrota.JobLedger) -> None:
    log_rows(ledger, 3)
    ledger.log_job_completion("a.sas", "PROD.AE", "SUCCESS")

    async def at_once() -> list[jobrota.MaintenanceReport]:
        return [await work for work in [ledger.maintain_async(), ledger.maintain_async(retain_hours=1)]]

    reports = asyncio.run(at_once())
    assert sum(report.files_compacted for report in reports) == 3
    values = reports[0].to_dict()
    assert json.loads(json.dumps(values)) == values
    assert [table["table"] for table in values["tables"]] == ["autosys_job_log", "job_notifications"]
    html = reports[0]._repr_html_()
    assert "Maintenance" in html
    assert "job_notifications" in html
    assert repr(reports[0]).startswith("MaintenanceReport(tables=2, ")


def test_overdue_maintenance_is_told_once_per_ledger_and_table(ledger: jobrota.JobLedger) -> None:
    log_rows(ledger, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ledger.executions()
    # As after a thousand single rows.
    directory = Path(ledger.root) / "autosys_job_log"
    (data,) = directory.glob("*/*.parquet")
    action = {
        "partitionValues": {"autosys_update_flag": "NO"},
        "size": data.stat().st_size,
        "modificationTime": 1,
        "dataChange": True,
    }
    lines = []
    for number in range(1000):
        copy = data.with_name(f"copy-{number}.parquet")
        os.link(data, copy)
        lines.append(json.dumps({"add": {"path": f"{data.parent.name}/{copy.name}", **action}}))
    (directory / "_delta_log" / f"{2:020}.json").write_text("\n".join(lines))
    with pytest.warns(jobrota.MaintenanceWarning, match=r"autosys_job_log has 1001 small files.*maintain\(\)"):
        assert ledger.executions().num_rows == 1001
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ledger.executions()
    another = jobrota.JobLedger(ledger.root)
    with pytest.warns(jobrota.MaintenanceWarning):
        asyncio.run(_await(another))
    report = another.maintain()
    assert (report.files_compacted, report.tables[0]["files_after"]) == (1001, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jobrota.JobLedger(ledger.root).executions().num_rows == 1001


async def _await(ledger: jobrota.JobLedger) -> None:
    await ledger.fetch_unprocessed_updates_async()


def test_the_command_maintains(ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    log_rows(ledger, 4)
    root = str(ledger.root)
    main(["ledger", "maintain", "--ledger", root])
    assert "autosys_job_log: 4 files, now 1;" in capsys.readouterr().out
    main(["ledger", "maintain", "--ledger", root, "--retain-hours", "0", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["files_compacted"] == 0
    assert values["files_vacuumed"] == 4
    with pytest.raises(SystemExit) as stop:
        main(["ledger", "maintain", "--ledger", root, "--retain-hours", "-1"])
    assert stop.value.code == 2
    capsys.readouterr()
    # One table that cannot be read: the others are maintained, and the exit code says that some failed.
    broken = Path(root) / "vm_selections" / "_delta_log"
    broken.mkdir(parents=True)
    (broken / f"{0:020}.json").write_text('{"add":')
    with pytest.raises(SystemExit) as stop:
        main(["ledger", "maintain", "--ledger", root])
    assert stop.value.code == 1
    assert "vm_selections: opening the table" in capsys.readouterr().err
