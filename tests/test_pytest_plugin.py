"""The fixtures that the package gives to other suites."""

from __future__ import annotations

import os
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota.notebook import configured_settings
from jobrota.pytest_plugin import NotebookRunner
from jobrota.sandbox_systems import SandboxAutosys, SandboxVms
from jobrota.stand_ins import Dbutils, Display


def test_each_fixture_configures_its_setting(
    jobrota_ledger: jobrota.JobLedger, jobrota_vms: SandboxVms, jobrota_autosys: SandboxAutosys
) -> None:
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    jobrota.log_job_completion("a.sas", "A", "SUCCESS")
    assert jobrota_ledger.pending_notifications().num_rows == 1
    assert jobrota.select_reachable_vm(jobrota_vms.names)[0] == "vm1"
    assert jobrota.autosys_update_runner().delivered == 1
    assert jobrota_autosys.statuses == [("A", "SUCCESS")]
    assert jobrota.fetch_unprocessed_updates() == []


def test_vms_go_down_and_up(jobrota_vms: SandboxVms, jobrota_ledger: jobrota.JobLedger) -> None:
    jobrota_vms.down("vm1", "vm2")
    assert jobrota.ping_test("vm1") == (None, None)
    assert jobrota.select_reachable_vm(["vm1", "vm2", "vm3"])[0] == "vm3"
    jobrota_vms.down("vm3")
    with pytest.raises(jobrota.NoReachableVmError) as caught:
        jobrota.select_reachable_vm(["vm1", "vm2", "vm3"])
    assert "down in this test" in caught.value.failures["vm3"]
    jobrota_vms.up("vm2")
    assert jobrota.select_reachable_vm(["vm1", "vm2", "vm3"]) == ("vm2", "127.0.0.12", "vm2-nic")
    for change in (jobrota_vms.down, jobrota_vms.up):
        with pytest.raises(LookupError, match="vm9"):
            change("vm9")


@pytest.mark.parametrize("jobrota_sandbox_options", [{"viya": False, "vms": 3, "vms_down": 1}])
def test_a_test_chooses_the_options_of_its_sandbox(jobrota_sandbox: jobrota.Sandbox, jobrota_vms: SandboxVms) -> None:
    assert jobrota_vms.names == ["vm1", "vm2", "vm3"]
    assert jobrota_sandbox.vms_down == ["vm2"]
    assert jobrota.ping_test("vm2") == (None, None)
    jobrota_vms.up("vm2")
    assert jobrota.ping_test("vm2") == ("127.0.0.12", "vm2-nic")


@pytest.mark.parametrize("run", [1, 2])
def test_each_test_has_a_sandbox_of_its_own(
    run: int, jobrota_autosys: SandboxAutosys, jobrota_ledger: jobrota.JobLedger
) -> None:
    assert jobrota_autosys.events == []
    jobrota_autosys.refuse_once("A")
    jobrota_ledger.log_job_completion("a.sas", "A", "FAILURE")
    assert jobrota_autosys.deliver(jobrota_ledger).failed == 1
    assert jobrota_autosys.deliver(jobrota_ledger, mapping={"FAILURE": "STARTJOB"}).delivered == 1
    assert [event["event"] for event in jobrota_autosys.events] == ["STARTJOB"]


def pytest_in(folder: Path, *command: str, **variables: str) -> str:
    """What a pytest of its own prints in `folder`, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command, "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        # When a pytest ends, it removes the directories of earlier runs below this one.
        env=os.environ | {"PYTEST_DEBUG_TEMPROOT": str(folder)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


SUITE = """
import os, pathlib, pytest, jobrota
from jobrota.notebook import configured_settings

def test_before():
    jobrota.configure(ledger="of-the-test-before", inventory=["vm7"], webhook="https://before.example.com")

def test_nothing_is_configured(jobrota_unconfigured, tmp_path):
    assert configured_settings() == {}
    with pytest.raises(jobrota.InvalidInputError, match="no ledger is configured"):
        jobrota.fetch_unprocessed_updates()
    jobrota.configure(ledger="of-the-test", mapping="STARTJOB", probe="tcp:1", webhook="https://test.example.com")
    assert os.listdir(tmp_path) == []

def test_all_is_as_before():
    configured = configured_settings()
    assert configured.pop("inventory").names == ["vm7"]
    assert "before.example.com" in str(configured.pop("webhook"))
    assert configured == {"ledger": "of-the-test-before"}
    assert os.environ["JOBROTA_LEDGER"] == "of-the-shell"
    assert "JOBROTA_CONFIG" not in os.environ
"""


def test_settings_of_the_shell_and_of_files_do_not_count(tmp_path: Path) -> None:
    """What is configured outside of a test is there again after it."""
    (tmp_path / "jobrota.toml").write_text('ledger = "of-the-file"\n')
    (tmp_path / "test_suite.py").write_text(SUITE)
    printed = pytest_in(tmp_path, "-m", "pytest", JOBROTA_LEDGER="of-the-shell")
    assert "3 passed" in printed, printed


def test_a_suite_without_the_fixtures_is_left_alone(tmp_path: Path) -> None:
    """Also if jobrota is imported before pytest starts, as in a notebook that calls `pytest.main`."""
    (tmp_path / "test_other.py").write_text("def test_other(request):\n    print(request.fixturenames)\n")
    code = "import jobrota, pytest, sys; sys.exit(pytest.main(['-s', '--strict-markers', *sys.argv[1:]]))"
    for options in ([], ["-p", "no:jobrota"]):
        printed = pytest_in(tmp_path, "-c", code, *options)
        assert "1 passed" in printed, printed
        assert "jobrota_" not in printed


def test_stand_ins_for_functions(jobrota_dbutils: Dbutils, jobrota_display: Display) -> None:
    def report(dbutils: Any, display: Any) -> None:
        dbutils.widgets.text("study", "A")
        display(dbutils.widgets.get("study"))

    report(jobrota_dbutils, jobrota_display)
    assert jobrota_display.shown == ["A"]


def test_a_notebook_gets_arguments_and_secrets(jobrota_notebook: NotebookRunner, tmp_path: Path) -> None:
    notebook = tmp_path / "job.py"
    notebook.write_text(
        "# Databricks notebook source\n"
        "dbutils.widgets.text('study', 'A')\n"
        "jobrota = __import__('jobrota')\n"
        "jobrota.configure(ledger='in-the-notebook')\n"
        "# COMMAND ----------\n"
        "display(dbutils.widgets.get('study'), dbutils.secrets.get('s', 'k') == secret)\n"
    )
    run = jobrota_notebook(notebook, widgets={"study": "B"}, secrets={"s": {"k": "v"}}, variables={"secret": "v"})
    assert run.shown == ["B", True]
    assert configured_settings() == {"ledger": "in-the-notebook"}


def test_each_setting_can_be_taken_back(jobrota_unconfigured: None) -> None:
    known: dict[str, Any] = {"inventory": ["vm1"], "mapping": "STARTJOB", "webhook": "https://example.com"}
    given = {name: known.get(name, name) for name in signature(jobrota.configure).parameters}
    jobrota.configure(**given)
    assert configured_settings().keys() == given.keys()
    jobrota.configure(**dict.fromkeys(given))
    assert configured_settings() == {}
