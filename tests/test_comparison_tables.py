"""A result as an Excel workbook, and runs kept in a Delta table."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import openpyxl
import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable

import jobrota
from support import column

FORMULA = '=HYPERLINK("http://127.0.0.1","x")'


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> jobrota.ComparisonResult:
    folder = tmp_path_factory.mktemp("run")
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=400) as sandbox:
        return jobrota.ViyaComparisonRunner(
            sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=3, arms="three_way", mode="all",
            repeat=2, results_dir=folder, results_table=folder / "tables", host_price=2.5,
        ).run(progress=False)  # fmt: skip


def recorded(jobs: list[str]) -> jobrota.ComparisonResult:
    count = len(jobs)
    text, number = DataType.utf8(), DataType.float64()
    return jobrota.ComparisonResult.from_table(
        Table.from_pydict(
            {
                "arm": Array(["one"] * count, text),
                "job": Array(jobs, text),
                "jes_created_s": Array([0.0] * count, number),
                "jes_end_s": Array([float(at + 1) for at in range(count)], number),
            }
        )
    )


def test_the_workbook_has_every_table(result: jobrota.ComparisonResult, tmp_path: Path) -> None:
    path = result.to_excel(tmp_path / "result.xlsx")
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Summary", "Warnings", "Arms", "Phases", "Hosts", "Jobs", "Concurrency"]
    verdict = result.to_dict()["analysis"]["verdict"]["text"]
    assert book["Summary"]["A1"].value == verdict
    for name, table in (
        ("Arms", result.arms()),
        ("Phases", result.phases()),
        ("Hosts", result.hosts()),
        ("Jobs", result.jobs()),
    ):
        sheet = book[name]
        assert [cell.value for cell in sheet[1]] == table.column_names
        assert sheet.max_row == table.num_rows + 1
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref is not None
    seconds = [cell.value for cell in book["Jobs"]["R"][1:]]
    assert book["Jobs"]["R1"].value == "running_s"
    assert seconds == column(result.jobs(), "running_s")
    assert [row[0].value for row in book["Warnings"].iter_rows(min_row=2)] == [w.code for w in result.warnings]
    assert len(book["Summary"]._charts) == len(book["Concurrency"]._charts) == 1


def test_text_is_never_a_formula(tmp_path: Path) -> None:
    path = recorded([FORMULA, "+1", "@x", "\u00e4" * 40_000]).to_excel(tmp_path / "x.xlsx")
    cells = [row[2] for row in openpyxl.load_workbook(path)["Jobs"].iter_rows(min_row=2)]
    assert [cell.data_type for cell in cells] == ["s"] * 4
    assert [cell.value for cell in cells[:3]] == [FORMULA, "+1", "@x"]
    with pytest.raises(jobrota.StorageError, match="cannot be written"):
        recorded(["a"]).to_excel(tmp_path / "none" / "x.xlsx")


def test_a_run_is_kept_once(result: jobrota.ComparisonResult) -> None:
    assert result.path is not None
    root = result.path.parent / "tables"
    # The runner has put it there.
    assert result.append_to(root) == 0
    assert jobrota.ComparisonResult.load(result.path).append_to(root) == 0
    rows = DeltaTable(str(root / "viya_comparison_jobs")).to_pyarrow_table()
    assert rows.num_rows == 18
    assert set(rows["run_id"].to_pylist()) == {result.to_dict()["metadata"]["run_id"]}
    history = jobrota.comparison_history(root)
    assert column(history, "arm") == ["sequential", "async_regular", "async_autoscaling"]
    assert column(history, "rounds") == [2, 2, 2]
    assert column(history, "makespan_s") == pytest.approx(column(result.arms(), "total_duration_s"), abs=0.01)


def test_many_who_keep_runs_at_once_lose_none(tmp_path: Path) -> None:
    runs = [recorded([f"job {number}", "other"]) for number in range(6)]
    added: list[int] = []

    def keep(run: jobrota.ComparisonResult) -> None:
        added.append(run.append_to(tmp_path))

    # Each of them twice.
    threads = [threading.Thread(target=keep, args=(run,)) for run in runs * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [0] * 6 + [2] * 6
    history = jobrota.comparison_history(tmp_path)
    assert history.num_rows == 6
    assert column(history, "jobs") == [2] * 6
    later = datetime.now(timezone.utc) + timedelta(days=1)
    assert jobrota.comparison_history(tmp_path, since=later).num_rows == 0
    with pytest.raises(jobrota.NotFoundError):
        jobrota.comparison_history(tmp_path / "none")
