"""The notebooks run from top to bottom: in Jupyter with the sandbox, and as on Databricks with a user's own systems."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import jobrota
from jobrota.notebook import configured_settings
from jobrota.notebook_run import NotebookRun
from jobrota.pytest_plugin import NotebookRunner
from support import REPOSITORY, column

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

# What each notebook shows with the sandbox, among other text, in this order.
SHOWN = {
    "1_select.ipynb": [
        "Selected VM: vm1 (IP: 127.0.0.11)\n",
        "['vm2', 'vm4', 'vm1', 'vm2']",
        "'vm3': (None, None)",
        "Selection(vm='vm4', ip_address='127.0.0.14'",
        "['vm1', 'vm2']",
        "127.0.0.13 refused a connection",
        "['vm4', 'vm2', 'vm4', 'vm2']",
        "'vm1': '127.0.0.11 refused a connection to TCP port 1'",
    ],
    "2_log_and_update.ipynb": [
        "('lb.sas', 'STUDY.LB', 'SUCCESS', 'NO')]",
        "delivered=3, failed=1",
        "delivered=1, failed=0",
        "| STUDY.CM | SUCCESS | 2       | delivered |",
        "[('STUDY.VS', 'SUCCESS')]",
        "[]",
        "JobLedger(",
    ],
    "3_compare.ipynb": [
        "ViyaComparisonRunner(",
        "failed_jobs=0",
        "(98 % interval, 5 rounds)",
        "shared_host:",
        "| async_autoscaling |",
        "ReportView(",
        ".xlsx'",
        "| async_autoscaling |",
    ],
    "4_operate.ipynb": [
        "notifications=3 (2 pending)",
        "| STUDY.CM.sas   | STUDY.CM ",
        "| NOT A NAME | SUCCESS | 1       | parked ",
        "AutoSys refuses",
        "STUDY.LB",
        "tables=5",
        'jobrota_parked_rows{table="job_notifications"} 0',
        "notifications=4 (2 pending)",
    ],
    "5_migrate.ipynb": [
        "MigrationReport(step='plan', ok=True, rows=6, appended=6, acknowledged=0,",
        "MigrationReport(step='copy', ok=True, rows=6, appended=6, acknowledged=0,",
        "MigrationReport(step='copy', ok=True, rows=8, appended=2, acknowledged=1,",
        "MigrationReport(step='finish', ok=True, rows=9,",
        "[('autosys_job_log', 4, 4), ('job_notifications', 6, 5)] True",
        "('eg.sas', 'STUDY.EG', 'SUCCESS')]",
        "LedgerSummary(",
    ],
    "quickstart.ipynb": ["failed_jobs=0", "DeliveryReport(delivered=2, failed=0", "Row(file_name='late.sas'"],
}


def test_each_notebook_is_run() -> None:
    assert [path.name for path in NOTEBOOKS] == sorted(SHOWN)


@pytest.mark.parametrize("path", [*NOTEBOOKS, REPOSITORY / "examples" / "nightly.ipynb"], ids=lambda path: path.name)
def test_notebooks_have_no_outputs_in_the_repository(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.name != "quickstart.ipynb"], ids=lambda path: path.name
)
def test_each_cell_begins_with_its_purpose(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert cell["source"][0].startswith("# " if cell["cell_type"] == "code" else "#"), cell["id"]


def printed(notebook: Any) -> str:
    """What the cells printed and showed, as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run_in_jupyter(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()
    text = printed(notebook)
    at = 0
    for expected in SHOWN[path.name]:
        assert expected in text[at:], f"{expected!r} is not in {text[at:]}"
        at = text.index(expected, at) + len(expected)
    assert list(tmp_path.iterdir()) == [tmp_path / "work"]


Run = Callable[..., NotebookRun]


@pytest.fixture
def run_with_own_systems(jobrota_notebook: NotebookRunner, tmp_path: Path) -> Run:
    """Runs a notebook as on Databricks, with the systems of a sandbox as the user's own."""

    def run(name: str, secrets: dict[str, str], **widgets: str) -> NotebookRun:
        arguments = {"systems": "own", "scope": "team", "ledger": str(tmp_path / "ledger"), **widgets}
        done = jobrota_notebook(
            REPOSITORY / "notebooks" / name,
            widgets=arguments,
            secrets={"team": {"storage-account-key": "a2V5", **secrets}},
        )
        (install,) = done.not_run
        assert f"/jobrota-{jobrota.__version__}-cp310-abi3-" in install
        assert "sandbox" not in done.variables
        assert configured_settings() == {}
        return done

    return run


def test_select_from_own_vms(run_with_own_systems: Run, jobrota_sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    inventory = tmp_path / "vms.json"
    inventory.write_text(json.dumps(jobrota_sandbox.inventory.vms))
    run = run_with_own_systems("1_select.ipynb", {}, inventory=str(inventory), probe=jobrota_sandbox.probe)
    assert run.variables["turns"] == ["vm2", "vm3", "vm4", "vm1"]
    assert run.variables["selection"].vm == "vm2"
    assert "vm1" not in run.variables["without"]
    assert sorted(run.variables["failures"]) == ["vm1", "vm2", "vm3", "vm4"]
    assert not any(column(run.variables["selector"].state(), "drained"))


def test_update_own_autosys(run_with_own_systems: Run, jobrota_sandbox: jobrota.Sandbox) -> None:
    user, password = jobrota_sandbox.autosys_credentials
    run = run_with_own_systems(
        "2_log_and_update.ipynb",
        {"autosys-password": password},
        autosys=jobrota_sandbox.autosys_url,
        user=user,
        study="CDISC01",
    )
    assert (run.variables["first"].delivered, run.variables["first"].pending) == (4, 0)
    assert run.variables["sent"] == []
    events = {event["job"]: event["status"] for event in jobrota_sandbox.autosys_events()}
    study = ("CDISC01.AE", "SUCCESS"), ("CDISC01.CM", "SUCCESS"), ("CDISC01.DM", "FAILURE"), ("CDISC01.LB", "SUCCESS")
    assert events == dict(study)
    assert password not in run.text


COMPARED = {"autosys": False, "vms": 0, "vms_down": 0, "speed": 1000, "definitions": {"a_pooled": 20, "b_pooled": 30}}


@pytest.mark.parametrize("jobrota_sandbox_options", [COMPARED])
def test_compare_own_contexts(run_with_own_systems: Run, jobrota_sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    run = run_with_own_systems(
        "3_compare.ipynb",
        {"viya-client-secret": "sandbox-secret"},
        base_url=jobrota_sandbox.viya_url,
        client_id="sandbox.client",
        jobs=str(jobrota_sandbox.jobs),
        results=str(tmp_path / "results"),
        rounds="1",
    )
    assert run.variables["result"].failed_jobs == 0
    assert "single_repeat" in [warning.code for warning in run.variables["result"].warnings]
    assert run.text.count("<iframe ") == 1
    suffixes = {path.suffix for path in (tmp_path / "results").iterdir()}
    assert {".json", ".xlsx"} <= suffixes
    assert "sandbox-secret" not in run.text


@pytest.mark.parametrize("changes", ["no", "yes"])
def test_operate_own_ledger(run_with_own_systems: Run, jobrota_ledger: jobrota.JobLedger, changes: str) -> None:
    """Nothing is changed unless the parameter allows it."""
    jobrota.configure(ledger=None)
    jobrota_ledger.log_job_completion("bad.sas", "NOT A NAME", "SUCCESS")
    jobrota.AutosysUpdater(jobrota_ledger, jobrota.autosys.SendEvent("/bin/true")).run()
    before = jobrota_ledger.deliveries().num_rows
    run = run_with_own_systems("4_operate.ipynb", {}, changes=changes)
    assert column(run.variables["pending"], "job_id") == ["NOT A NAME"]
    assert column(run.variables["parked"], "job_id") == ["NOT A NAME"]
    if changes == "yes":
        assert (run.variables["settled"], run.variables["after"].pending) == (1, 0)
        assert run.variables["maintenance"].problems == []
    else:
        assert (run.variables["settled"], run.variables["after"].pending) == (0, 1)
        assert run.variables["maintenance"] is None
        assert jobrota_ledger.deliveries().num_rows == before


@pytest.mark.parametrize("step", ["plan", "copy"])
def test_migrate_own_tables(
    run_with_own_systems: Run, jobrota_ledger: jobrota.JobLedger, tmp_path: Path, step: str
) -> None:
    """The old tables stay as they are, and the new ones are written by the step that says so."""
    jobrota_ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
    jobrota.configure(ledger=None)
    new = str(tmp_path / "migrated")
    run = run_with_own_systems("5_migrate.ipynb", {}, source=jobrota_ledger.root, ledger=new, step=step)
    assert (run.variables["plan"].ok, run.variables["second"].step) == (True, step)
    assert run.variables["finish"].ok is (step == "copy")
    assert (tmp_path / "migrated").exists() is (step == "copy")
    assert column(jobrota_ledger.notifications(), "job_id") == ["STUDY.AE"]
