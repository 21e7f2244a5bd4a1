"""Tests the notebook `nightly.ipynb` with the fixtures of the package. Nothing else is needed: `pytest examples`."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobrota import JobLedger, NoReachableVmError
from jobrota.pytest_plugin import NotebookRunner
from jobrota.sandbox_systems import SandboxAutosys, SandboxVms

NIGHTLY = Path(__file__).parent / "nightly.ipynb"


def test_updates_arrive(
    jobrota_notebook: NotebookRunner,
    jobrota_ledger: JobLedger,
    jobrota_vms: SandboxVms,
    jobrota_autosys: SandboxAutosys,
) -> None:
    """The job runs on a VM that answers, and AutoSys gets both updates."""
    jobrota_vms.down("vm1")
    run = jobrota_notebook(NIGHTLY, widgets={"study": "CDISC01"})
    assert run.exit_value == "2 delivered, 0 pending on vm2"
    assert sorted(jobrota_autosys.statuses) == [("CDISC01.AE", "SUCCESS"), ("CDISC01.CM", "SUCCESS")]
    assert jobrota_ledger.pending_executions().num_rows == 0


def test_a_refused_update_stays_pending(
    jobrota_notebook: NotebookRunner,
    jobrota_ledger: JobLedger,
    jobrota_vms: SandboxVms,
    jobrota_autosys: SandboxAutosys,
) -> None:
    """What AutoSys refuses at first is delivered by the next cycle."""
    jobrota_autosys.refuse_once("STUDY.AE")
    assert jobrota_notebook(NIGHTLY).exit_value == "1 delivered, 1 pending on vm1"
    assert jobrota_ledger.pending_notifications()["job_id"].to_pylist() == ["STUDY.AE"]
    assert jobrota_autosys.deliver(jobrota_ledger).delivered == 1


def test_nothing_is_logged_without_a_vm(
    jobrota_notebook: NotebookRunner, jobrota_ledger: JobLedger, jobrota_vms: SandboxVms
) -> None:
    """The notebook ends with the error of the cell that selects."""
    jobrota_vms.down("vm1", "vm2", "vm3")
    with pytest.raises(NoReachableVmError, match="vm2"):
        jobrota_notebook(NIGHTLY)
    assert not Path(jobrota_ledger.root, "autosys_job_log").exists()
