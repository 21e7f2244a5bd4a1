"""Azure Run Command from Python: the sandbox's Azure over TLS, and a real /bin/sh for the scripts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota.autosys import RunCommand
from support import column, rows
from test_web_services import HOSTILE, outcomes
from tls_proxy import Authority


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[jobrota.Sandbox]:
    """Two VMs, in an Azure that is reached over TLS alone."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with (
        jobrota.Sandbox(viya=False, vms=2, vms_down=0, azure=True) as sandbox,
        authority.serve(sandbox.azure_url) as url,
    ):
        sandbox.set_azure_public_url(url)
        yield sandbox


def run_command(azure: jobrota.Sandbox, **more: Any) -> RunCommand:
    url = azure.azure_url
    assert url.startswith("https://")
    given: dict[str, Any] = {
        "subscription_id": azure.azure_subscription_id,
        "resource_group": azure.azure_resource_group,
        "credential": {**azure.azure_credential, "authority_host": url},
        "endpoint": url,
        "busy_timeout": 60,
        "timeout": 60,
        **more,
    }
    selector = jobrota.RoundRobinSelector(azure.inventory, cursor="process", probe=azure.probe)
    return RunCommand(selector, **given)


def vms(ledger: jobrota.JobLedger) -> set[str | None]:
    attempts = ledger.deliveries()
    pairs = zip(column(attempts, "outcome"), column(attempts, "vm"), strict=True)
    return {vm for outcome, vm in pairs if outcome != "sending"}


def test_each_row_has_its_own_outcome(ledger: jobrota.JobLedger, azure: jobrota.Sandbox) -> None:
    azure.refuse_once(["B"])
    for job in ("A", "B", "C", "two words"):
        ledger.log_job_completion("a.sas", job, "SUCCESS")
    updater = jobrota.AutosysUpdater(ledger, run_command(azure))
    report = updater.run()
    assert (report.delivered, report.failed, report.parked, report.pending) == (2, 1, 1, 2)
    assert outcomes(ledger) == {"A": "delivered", "B": "failed", "C": "delivered", "two words": "parked"}
    assert "CAUAJM_E_10029" in str(report.failures)
    assert [vm for vm, _ in azure.azure_scripts()] == ["vm1"], "one script for all of them"
    assert vms(ledger) == {"vm1", None}, "what was parked went nowhere"
    assert updater.run().delivered == 1
    assert sorted(event["job"] for event in azure.autosys_events()) == ["A", "B", "C"]


def test_hostile_names_arrive_byte_for_byte(ledger: jobrota.JobLedger, azure: jobrota.Sandbox) -> None:
    for number, name in enumerate(HOSTILE):
        ledger.log_job_completion(name, f"J{number}", "FAILURE")
    transport = run_command(azure, comment="of {file_name}")
    assert jobrota.AutosysUpdater(ledger, transport).run().delivered == len(HOSTILE)
    comments = {event["job"]: event["comment"] for event in azure.autosys_events()}
    assert comments == {f"J{number}": f"of {name}" for number, name in enumerate(HOSTILE)}
    assert not Path("x").exists()


@pytest.mark.parametrize("mode", ["forbidden", "agent_down", "deallocated"])
def test_a_vm_that_fails_hands_over_to_the_next(ledger: jobrota.JobLedger, azure: jobrota.Sandbox, mode: str) -> None:
    if mode == "deallocated":
        azure.set_azure_power("vm1", mode)
    else:
        azure.set_azure_run_command("vm1", mode)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert jobrota.AutosysUpdater(ledger, run_command(azure)).run().delivered == 1
    assert [vm for vm, _ in azure.azure_scripts()] == ["vm2"]


@pytest.mark.parametrize("mode", ["fails_afterwards", "output_lost", "forgotten", "operation_fails"])
def test_what_may_have_run_is_unknown(ledger: jobrota.JobLedger, azure: jobrota.Sandbox, mode: str) -> None:
    azure.set_azure_run_command("vm1", mode)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    report = jobrota.AutosysUpdater(ledger, run_command(azure)).run()
    assert (report.unknown, report.delivered, report.pending) == (1, 0, 1)
    assert {vm for vm, _ in azure.azure_scripts()} <= {"vm1"}, "it is not run again elsewhere"


def test_output_that_is_cut_off_is_unknown(ledger: jobrota.JobLedger, azure: jobrota.Sandbox) -> None:
    azure.set_azure_output_limit(20)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    report = jobrota.AutosysUpdater(ledger, run_command(azure)).run()
    assert (report.unknown, report.delivered) == (1, 0)
    assert [event["job"] for event in azure.autosys_events()] == ["A"]


def test_busy_wait_is_limited(ledger: jobrota.JobLedger, azure: jobrota.Sandbox) -> None:
    azure.set_azure_run_command("vm1", "busy")
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert jobrota.AutosysUpdater(ledger, run_command(azure, busy_timeout=1)).run().delivered == 1
    posts = [line for line in azure.azure_requests() if line.startswith("POST") and "/vm1/" in line]
    assert len(posts) > 1
    assert [vm for vm, _ in azure.azure_scripts()] == ["vm2"]


def test_confirm_reads_status_back(ledger: jobrota.JobLedger, azure: jobrota.Sandbox) -> None:
    ledger.log_job_completion("a.sas", "A", "FAILURE")
    updater = jobrota.AutosysUpdater(ledger, run_command(azure, autostatus="autostatus"), confirm=True)
    assert updater.run().delivered == 1
    assert "AutoSys shows FAILURE" in str(rows(ledger.deliveries()))


def test_secrets_are_nowhere_to_be_seen(
    ledger: jobrota.JobLedger, azure: jobrota.Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [azure.azure_credential["client_secret"], "secret-word"]
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    for credential in (
        {**azure.azure_credential, "authority_host": azure.azure_url, "client_secret": "secret-word"},
        lambda: "secret-word",
        None,
    ):
        transport = run_command(azure, credential=credential) if credential else run_command(azure)
        report = jobrota.AutosysUpdater(ledger, transport).run()
        assert report.parked == 0
        shown = [repr(transport), repr(report), str(report.to_dict()), str(rows(ledger.deliveries()))]
        text = "".join([*shown, *(record.getMessage() for record in caplog.records), str(azure.azure_scripts())])
        assert not [secret for secret in secrets if secret in text]
    assert outcomes(ledger) == {"A": "delivered"}


def test_an_authority_that_is_not_trusted_is_refused(
    ledger: jobrota.JobLedger, azure: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path, "stranger").file))
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    token = azure.azure_token()
    report = jobrota.AutosysUpdater(ledger, run_command(azure, credential=lambda: token)).run()
    assert (report.failed, report.unknown) == (1, 0)
    assert "could not be reached" in report.failures[0]["detail"]
    assert azure.azure_scripts() == []


def test_options_that_can_never_work_are_refused(azure: jobrota.Sandbox) -> None:
    for wrong in ({"batch": 0}, {"env_file": "relative"}, {"run_as": "a b"}, {"timeout": 0}, {"credential": 5}):
        with pytest.raises(jobrota.InvalidInputError):
            run_command(azure, **wrong)
    with pytest.raises(jobrota.InvalidInputError, match="RoundRobinSelector"):
        RunCommand(["vm1"], subscription_id="s")  # type: ignore[arg-type]
    assert repr(run_command(azure)).startswith('RunCommand(subscription_id="')
