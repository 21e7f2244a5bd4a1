"""The functions that existing notebooks call: same names, same return values."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import jobrota
from jobrota import notebook
from support import answers


def no_nic(vm: str) -> tuple[str, str]:
    return "10.0.0.1", ""


def silent(vm: str) -> tuple[None, None]:
    return None, None


def test_select_prints_and_returns_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobrota.configure(ledger=tmp_path / "ledger", probe=answers)
    assert jobrota.select_reachable_vm(["vm1", "vm2"]) == ("vm1", "10.0.0.1", "nic-vm1")
    assert jobrota.select_reachable_vm(["vm1", "vm2"]) == ("vm2", "10.0.0.2", "nic-vm2")
    assert capsys.readouterr().out == "Selected VM: vm1 (IP: 10.0.0.1)\nSelected VM: vm2 (IP: 10.0.0.2)\n"


def test_the_turns_outlive_the_selector(tmp_path: Path) -> None:
    for expected in ("vm1", "vm2", "vm1"):
        jobrota.configure(ledger=tmp_path / "ledger", probe=answers)  # forgets the selectors, as a new process does
        assert jobrota.select_reachable_vm(["vm1", "vm2"])[0] == expected


def test_select_without_an_answer(tmp_path: Path) -> None:
    jobrota.configure(ledger=tmp_path / "ledger", probe=silent)
    with pytest.raises(jobrota.NoReachableVmError, match=r"^No reachable VM found\."):
        jobrota.select_reachable_vm(["vm1"])


def test_ping_test(tmp_path: Path) -> None:
    jobrota.configure(ledger=tmp_path / "ledger", probe=answers)
    assert jobrota.ping_test("vm3") == ("10.0.0.3", "nic-vm3")
    jobrota.configure(probe=silent)
    assert jobrota.ping_test("vm3") == (None, None)
    assert not (tmp_path / "ledger").exists()


def test_a_missing_nic_is_empty_and_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "_missing_nic_warned", False)
    jobrota.configure(ledger=tmp_path / "ledger", probe=no_nic)
    with pytest.warns(UserWarning, match="nic|NIC"):
        assert jobrota.ping_test("vm1") == ("10.0.0.1", "")
    assert jobrota.ping_test("vm1") == ("10.0.0.1", "")


def test_the_configured_inventory_gives_address_and_nic(tmp_path: Path, sandbox: jobrota.Sandbox) -> None:
    jobrota.configure(ledger=tmp_path / "ledger", inventory=sandbox.inventory, probe=sandbox.probe)
    vm, ip_address, nic_name = jobrota.select_reachable_vm(sandbox.inventory.names)
    entry = next(entry for entry in sandbox.inventory.vms if entry["name"] == vm)
    assert (ip_address, nic_name) == (entry["ip_address"], entry["nic_name"])
    assert nic_name


def test_one_text_is_not_a_list_of_vms() -> None:
    with pytest.raises(jobrota.InvalidInputError, match="list"):
        jobrota.select_reachable_vm("vm1")


def test_a_fetch_before_the_first_log_is_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobrota.configure(ledger=tmp_path / "ledger")
    assert jobrota.fetch_unprocessed_updates() == []
    assert f"there is no ledger at {tmp_path / 'ledger'}" in caplog.text
    assert not (tmp_path / "ledger").exists()
    jobrota.log_job_completion("a.sas", "A", "SUCCESS")
    caplog.clear()
    assert jobrota.fetch_unprocessed_updates() == []
    assert caplog.text == ""
    # A ledger that was there is missed.
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    assert len(jobrota.fetch_unprocessed_updates()) == 1
    shutil.rmtree(tmp_path / "ledger")
    with pytest.raises(jobrota.NotFoundError, match="deleted since it was opened"):
        jobrota.fetch_unprocessed_updates()


def test_rows_are_named_tuples(tmp_path: Path) -> None:
    jobrota.configure(ledger=tmp_path / "ledger")
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    (row,) = jobrota.fetch_unprocessed_updates()
    assert isinstance(row, tuple)
    assert (row.file_name, row.job_id, row.status, row.autosys_update_flag) == ("a.sas", "A", "SUCCESS", "NO")
    assert row["job_id"] == row[1] == "A"
    assert row.asDict()["status"] == "SUCCESS"
    assert row.execution_timestamp is not None
    assert row.execution_timestamp.tzinfo is not None
    file_name, job_id, *_ = row
    jobrota.update_autosys_flag(str(file_name), str(job_id))
    assert jobrota.fetch_unprocessed_updates() == []


def test_the_runner_with_a_callable(tmp_path: Path) -> None:
    sent: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append(job_id)
        return True

    jobrota.configure(ledger=tmp_path / "ledger")
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    jobrota.log_job_completion("a.sas", "A", "SUCCESS")
    report = jobrota.autosys_update_runner(send)
    assert (report.delivered, sent) == (1, ["A"])
    assert jobrota.fetch_unprocessed_updates() == []


def test_the_runner_with_the_configured_transport(tmp_path: Path) -> None:
    jobrota.configure(ledger=tmp_path / "ledger", transport=lambda *row: True)
    jobrota.log_job_completion("a.sas", "A", "SUCCESS")
    assert jobrota.autosys_update_runner().delivered == 1


def test_the_runner_says_when_only_executions_were_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobrota.configure(ledger=tmp_path / "ledger", transport=lambda *row: True)
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    with pytest.raises(jobrota.InvalidInputError, match="JOBROTA_SOURCE"):
        jobrota.autosys_update_runner()
    monkeypatch.setenv("JOBROTA_SOURCE", "autosys_job_log")
    assert jobrota.autosys_update_runner().delivered == 1


@pytest.mark.parametrize("name", ["ledger", "transport"])
def test_missing_setting_names_three_ways(tmp_path: Path, name: str) -> None:
    if name == "transport":
        jobrota.configure(ledger=tmp_path / "ledger")
        jobrota.log_job_completion("a.sas", "A", "SUCCESS")
    with pytest.raises(jobrota.InvalidInputError, match=rf"configure\({name}=(.|\n)*JOBROTA_{name.upper()}(.|\n)*toml"):
        jobrota.autosys_update_runner()


def test_settings_come_from_the_environment_and_then_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("jobrota.toml").write_text(f'ledger = "{tmp_path / "from-file"}"\n')
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    assert (tmp_path / "from-file" / "autosys_job_log").is_dir()
    monkeypatch.setenv("JOBROTA_LEDGER", str(tmp_path / "from-environment"))
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    assert (tmp_path / "from-environment" / "autosys_job_log").is_dir()


def test_a_refused_configuration_changes_nothing(tmp_path: Path) -> None:
    jobrota.configure(ledger=tmp_path / "ledger")
    with pytest.raises(jobrota.InvalidInputError):
        jobrota.configure(ledger=tmp_path / "other", inventory=["vm1", "vm1"])
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    assert (tmp_path / "ledger").is_dir()
