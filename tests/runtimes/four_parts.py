"""Selects a VM, logs, delivers and compares. tests/test_runtimes.py runs it with the packages of a runtime."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import jobrota


def use_arrow(ledger: jobrota.JobLedger) -> int:
    """Passes a row of the ledger to the runtime's pyarrow and pandas, and logs what they return if they can.

    Returns:
        The number of rows that it logged.
    """
    import pyarrow

    pending = ledger.pending_notifications()
    frame = pending.to_pandas()
    assert frame["job_id"].tolist() == ["STUDY.AE"]
    assert str(frame.dtypes["notification_timestamp"]) in ("datetime64[ns, UTC]", "datetime64[us, UTC]")
    assert pyarrow.Table.from_pylist(pending.to_pylist()).num_rows == 1
    if not hasattr(pyarrow.Table, "__arrow_c_stream__"):
        return 0
    return ledger.log_notifications(pyarrow.table(pending)) + ledger.log_notifications(frame)


def use_table(table: jobrota.Table) -> None:
    """Checks that the class of tables works with the runtime's arro3-core."""
    names = [name.upper() for name in table.column_names]
    methods = [table.slice(0), table.drop_columns(["status"]), table.rename_columns(names), table.rechunk()]
    assert {type(made) for made in methods} == {jobrota.Table}
    assert [row.job_id for row in table] == [row["job_id"] for row in table.to_pylist()] == ["STUDY.AE"]


def main(folder: Path) -> None:
    """Runs the four parts below the folder."""
    with jobrota.Sandbox(vms=2, vms_down=1, speed=1000) as sandbox:
        selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor=folder / "ledger", probe=sandbox.probe)
        selected = selector.select()
        assert selected.vm in sandbox.inventory.names
        assert selector.check().num_rows == 2

        ledger = jobrota.JobLedger(folder / "ledger")
        ledger.log_job_execution("ae.sas", "STUDY.AE", "SUCCESS")
        ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
        use_table(ledger.pending_notifications())
        rows = 1 + (use_arrow(ledger) if find_spec("pyarrow") else 0)
        assert jobrota.AutosysUpdater(ledger, lambda *row: True).run().delivered == rows
        assert ledger.pending_notifications().num_rows == 0

        runner = jobrota.ViyaComparisonRunner(
            sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, mode="all", limit_jobs=2, results_dir=folder
        )
        result = runner.run(progress=True)
        assert result.failed_jobs == 0
        assert result.jobs().num_rows == 4

    from jobrota.cli import main as command

    command(["autosys", "status", "--ledger", str(folder / "ledger")])


main(Path(sys.argv[1]))
