"""Roots on a local disk, in the forms that users write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jobrota


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    jobrota.JobLedger("~/ledger").log_job_execution("a.sas", "A", "SUCCESS")
    assert (tmp_path / "home/ledger/autosys_job_log").is_dir()
    assert not Path("~").exists()


def test_a_deleted_working_directory_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = """
import os, jobrota
os.rmdir(os.getcwd())
jobrota.JobLedger("/tmp")
try:
    jobrota.JobLedger("ledger")
except jobrota.errors.InvalidInputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, timeout=60, check=True
    )
    assert "working directory" in done.stdout


@pytest.mark.parametrize("root", [Path("s3://bucket/x"), Path("abfss://c@a.dfs.core.windows.net/x")])
def test_a_uri_that_pathlib_shortened_makes_no_directory(root: Path) -> None:
    with pytest.raises(jobrota.errors.InvalidInputError, match="two slashes"):
        jobrota.JobLedger(root)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("root", ["/dbfs/ledger", "dbfs:/ledger", "/Volumes/a/b/c", "/Workspace/x"])
def test_databricks_mount_is_refused(root: str) -> None:
    with pytest.raises(jobrota.errors.UnsupportedError, match="abfss://container@account") as caught:
        jobrota.JobLedger(root)
    assert not caught.value.retryable


def test_misspelt_local_option_is_refused(tmp_path: Path) -> None:
    options = {"azure_storage_acount_key": "S3cr3t"}
    with pytest.raises(jobrota.errors.InvalidInputError, match="azure_storage_account_key") as caught:
        jobrota.JobLedger(tmp_path, storage_options=options)
    assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["delta.autosys_job_log", "main.ops.ledger"])
def test_the_name_of_a_table_makes_no_directory(name: str, ledger: jobrota.JobLedger) -> None:
    with pytest.raises(jobrota.errors.InvalidInputError, match=f"give \\./{name}"):
        jobrota.JobLedger(name)
    jobrota.JobLedger(f"./{name}").log_job_execution("a.sas", "A", "SUCCESS")
    # A directory that exists is meant.
    assert jobrota.JobLedger(name).fetch_unprocessed_updates().num_rows == 1


def test_a_new_ledger_inside_a_table_is_refused(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    table = Path(ledger.root) / "autosys_job_log"
    for root in (table, table / "below", table / "below" / "it"):
        with pytest.raises(jobrota.errors.InvalidInputError, match=f"lies in the Delta table {table},"):
            jobrota.JobLedger(root)
    assert not (table / "below").exists()


def test_a_ledger_that_is_inside_a_table_already_is_warned_of(
    ledger: jobrota.JobLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    (Path(ledger.root).parent / "_delta_log").mkdir()
    assert jobrota.JobLedger(ledger.root).fetch_unprocessed_updates().num_rows == 1
    assert "never vacuum" in caplog.text
