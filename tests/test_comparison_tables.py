"""A result as an Excel workbook, and runs in a Delta table."""

from __future__ import annotations

import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

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


def test_a_workbook_replaces_the_file_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    path = recorded(["a"]).to_excel(folder / "x.xlsx")
    recorded(["b", "c"]).to_excel(path)
    assert [cell.value for cell in openpyxl.load_workbook(path)["Jobs"]["C"]] == ["job", "b", "c"]
    assert list(folder.iterdir()) == [path]
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(jobrota.JobrotaError, match=r"pip install 'altair>=.*xlsxwriter"):
        recorded(["a"]).to_excel(path)


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


def test_workbook_takes_any_arm_name(tmp_path: Path) -> None:
    text, number = DataType.utf8(), DataType.float64()
    arms = ["=[http://127.0.0.1/evil.xlsx]Sheet1!A1", "team!A1", "Sheet1!$A$1", "long " * 9000, "\U0001f600" * 20_000]
    moments = [float(at) for at in range(len(arms))]
    columns: dict[str, Any] = {
        "arm": Array(arms, text),
        "job": Array(arms, text),
        "host": Array(["h"] * len(arms), text),
    }
    for name in ("jes_created_s", "wlo_start_s"):
        columns[name] = Array(moments, number)
    for name in ("jes_end_s", "wlo_end_s"):
        columns[name] = Array([moment + 5 for moment in moments], number)
    result = jobrota.ComparisonResult.from_table(Table.from_pydict(columns))
    book = openpyxl.load_workbook(result.to_excel(tmp_path / "names.xlsx"))
    assert [cell.value for cell in book["Jobs"]["A"][1:4]] == arms[:3]
    (chart,) = book["Concurrency"]._charts
    assert all(series.tx.strRef.f.startswith("Concurrency!") for series in chart.series)


def test_reordered_run_is_appended_once(tmp_path: Path) -> None:
    text, number = DataType.utf8(), DataType.float64()

    def added(jobs: list[str], ends: list[float]) -> int:
        columns: dict[str, Any] = {
            "arm": Array(["one"] * 2, text),
            "job": Array(jobs, text),
            "sequence": Array(ends, number),
        }
        columns |= {"jes_created_s": Array([0.0, 0.0], number), "jes_end_s": Array(ends, number)}
        return jobrota.ComparisonResult.from_table(Table.from_pydict(columns)).append_to(tmp_path)

    assert [added(["a", "b"], [1.0, 2.0]), added(["b", "a"], [2.0, 1.0]), added(["a", "b"], [1.0, 3.0])] == [2, 0, 2]


def test_a_result_whose_file_is_gone_is_still_shown(tmp_path: Path) -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=400) as sandbox:
        result = jobrota.ViyaComparisonRunner(
            sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=1, results_dir=tmp_path
        ).run(progress=False)
    assert result.path is not None
    result.path.unlink()
    with pytest.raises(jobrota.NotFoundError, match="cannot be read any more"):
        result.to_dict()
    assert "No verdict" in result._repr_html_()
