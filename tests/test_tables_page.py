"""docs/tables.md is a contract: real tables have its columns, types and partitions, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import jobrota
from jobrota.autosys import SendEvent
from support import REPOSITORY, runner

Columns = list[tuple[str, str]]


def documented() -> dict[str, tuple[Columns, list[str]]]:
    """The columns of each table with their types, and the columns by which it is partitioned."""
    page = (REPOSITORY / "docs" / "tables.md").read_text(encoding="utf-8")
    tables = {}
    for section in page.split("\n## `")[1:]:
        rows = re.findall(r"^\| (`.+?`) \| (\w+) \|", section, re.MULTILINE)
        columns = [(name, kind) for names, kind in rows for name in re.findall(r"`(\w+)`", names)]
        tables[section.partition("`")[0]] = (columns, re.findall(r"Partitioned by `(\w+)`", section))
    return tables


@pytest.fixture
def root(tmp_path: Path, sandbox: jobrota.Sandbox) -> Path:
    """The root of a ledger with every table that the package writes."""
    root, legacy = tmp_path / "ledger", tmp_path / "legacy"
    legacy.mkdir()
    record = {"file_name": "ae.sas", "job_id": "T.AE", "status": "SUCCESS", "timestamp": "2026-01-01T00:00:00Z"}
    (legacy / "ae.json").write_text(json.dumps(record), encoding="utf-8")
    ledger = jobrota.JobLedger(root)
    ledger.import_json(legacy)
    ledger.log_job_execution("cm.sas", "T.CM", "SUCCESS")
    sandbox.refuse_once(["T.AE"])  # so that there is a state to save
    jobrota.AutosysUpdater(ledger, SendEvent(sandbox.sendevent)).run()
    jobrota.RoundRobinSelector(sandbox.inventory, cursor=root, probe=sandbox.probe).select()
    runner(sandbox, limit_jobs=1, results_table=root, results_dir=tmp_path / "results").run(progress=False)
    return root


def test_real_tables_are_as_documented(root: Path) -> None:
    from deltalake import DeltaTable

    found = {}
    for folder in root.iterdir():
        table = DeltaTable(str(folder))
        columns = [(field.name, str(field.type.type)) for field in table.schema().fields]
        found[folder.name] = (columns, table.metadata().partition_columns)
    assert found == documented()
