"""Each transport from an option, the environment and the settings file; and what describes no transport."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota.transport_settings import transport_from_text
from sshd import USER, Sshd
from support import answers, column, run
from tls_proxy import Authority

READS_TOML = sys.version_info >= (3, 11)


@pytest.fixture
def autosys() -> Any:
    with jobrota.Sandbox(viya=False, vms=2, vms_down=0, azure=True) as sandbox:
        yield sandbox


@pytest.fixture
def pending(ledger: jobrota.JobLedger, monkeypatch: pytest.MonkeyPatch) -> jobrota.JobLedger:
    """A ledger of the settings, with a row to deliver."""
    monkeypatch.setenv("JOBROTA_LEDGER", ledger.root)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    return ledger


def inventory(vms: Any) -> Path:
    path = Path("vms.json")
    path.write_text(json.dumps(vms))
    return path


def selector() -> jobrota.RoundRobinSelector:
    return jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers)


def sent_by(ledger: jobrota.JobLedger, autosys: jobrota.Sandbox) -> str:
    """The transport of the attempt that delivered the row."""
    assert [event["job"] for event in autosys.autosys_events()] == ["A"]
    attempts = ledger.deliveries()
    assert column(attempts, "outcome") == ["sending", "delivered"]
    return str(column(attempts, "transport")[-1])


def test_sendevent_from_each_place(
    pending: jobrota.JobLedger, autosys: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("jobrota.toml").write_text('transport = "/none/of/the/file"\n')
    monkeypatch.setenv("JOBROTA_TRANSPORT", "/none/of/the/environment")
    assert run("autosys", "deliver", "--transport", "/none/of/the/option") == 1
    assert run("autosys", "deliver") == 1
    monkeypatch.setenv("JOBROTA_TRANSPORT", str(autosys.sendevent))
    assert run("autosys", "deliver") == 0
    assert sent_by(pending, autosys) == "sendevent"
    assert run("autosys", "deliver", "--transport", "x", "--sendevent", "x") == 2


def test_web_services_with_a_password_of_the_environment(
    pending: jobrota.JobLedger, autosys: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, password = autosys.autosys_credentials
    monkeypatch.setenv("AUTOSYS_PASSWORD", password)
    monkeypatch.setenv("JOBROTA_TRANSPORT", f"{autosys.autosys_url} user={user} password_env=AUTOSYS_PASSWORD")
    assert run("autosys", "deliver", "--confirm") == 0
    assert sent_by(pending, autosys) == "web_services"


def test_web_services_of_a_table_with_a_password_of_a_file(
    pending: jobrota.JobLedger, autosys: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, password = autosys.autosys_credentials
    Path("secret").write_text(f"{password}\n")
    table = {"kind": "web-services", "base_url": autosys.autosys_url, "user": user, "password_file": "secret"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    Path("mine.toml").write_text("\n".join(["[transport]", *lines, "accepted = [200, 201]", "allow_http = true"]))
    monkeypatch.setenv("JOBROTA_CONFIG", "mine.toml")
    if READS_TOML:
        assert run("autosys", "deliver") == 0
        assert sent_by(pending, autosys) == "web_services"
    else:
        assert run("autosys", "deliver") == 2


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('program = "x"', "the table [transport] has no kind"),
        ('kind = "ssh"\nuser = 5', "user must be text, not 5"),
        ('kind = "sendevent"\ntimeout = inf', "timeout of the transport sendevent is infinite or not a number"),
        ('kind = "sendevent"\ntimeout = 2026-05-01', "timeout of the transport sendevent is a table or a date"),
        ('kind = "web-services"\nbase_url = "https://a"\npassword = "hidden"', "takes no password as text"),
    ],
)
def test_a_table_that_describes_no_transport(
    lines: str, told: str, pending: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("jobrota.toml").write_text(f"[transport]\n{lines}\n")
    assert run("autosys", "deliver", "--inventory", inventory(["vm1"]), "--cursor", "process") == 2
    shown = capsys.readouterr().err
    assert (told if READS_TOML else "transport in the settings file jobrota.toml must be text in quotes") in shown
    assert "hidden" not in shown


def test_ssh(pending: jobrota.JobLedger, autosys: jobrota.Sandbox, tmp_path: Path) -> None:
    servers = Sshd(tmp_path / "sshd")
    servers.start("127.0.0.1")
    try:
        spec = f"ssh user={USER} port={servers.port} key_file={servers.key} known_hosts={servers.known_hosts}"
        spec += f" program={autosys.sendevent} 'comment=of {{file_name}}'"
        vms = inventory({"vm1": {"ip_address": "127.0.0.1"}})
        probe = ("--probe", f"tcp:{servers.port}", "--cursor", "process")
        assert run("autosys", "deliver", "--transport", spec, "--inventory", vms, *probe) == 0
    finally:
        servers.stop()
    assert sent_by(pending, autosys) == "ssh"
    assert autosys.autosys_events()[0]["comment"] == "of a.sas"


def test_run_command(
    pending: jobrota.JobLedger, autosys: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with authority.serve(autosys.azure_url) as url:
        autosys.set_azure_public_url(url)
        for name, value in autosys.azure_credential.items():
            monkeypatch.setenv(f"AZURE_{name.upper()}", value)
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", url)
        monkeypatch.setenv("JOBROTA_INVENTORY", str(inventory(autosys.inventory.vms)))
        spec = f"run-command subscription_id={autosys.azure_subscription_id} endpoint={url}"
        spec += f" resource_group={autosys.azure_resource_group} batch=5"
        assert run("autosys", "deliver", "--transport", spec, "--probe", autosys.probe, "--cursor", "process") == 0
    assert sent_by(pending, autosys) == "run_command"


def test_a_callable_of_the_working_directory(
    pending: jobrota.JobLedger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    Path("our_sender.py").write_text(
        "def send(file_name, job_id, status):\n    print('sent', file_name, job_id, status)\n    return True\n"
    )
    assert run("autosys", "deliver", "--transport", "our_sender:send") == 0
    assert "sent a.sas A SUCCESS" in capsys.readouterr().out
    assert pending.pending_notifications().num_rows == 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("import sys; sys.exit(0)", "the module raises SystemExit: 0"),
        ("x = (", "the module raises SyntaxError: '(' was never closed (our_sender.py, line 1)"),
        ("raise RuntimeError('out of order')", "the module raises RuntimeError: out of order"),
    ],
)
def test_a_module_that_fails_is_wrong_usage(
    lines: str,
    told: str,
    pending: jobrota.JobLedger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("our_sender.py").write_text(lines)
    importlib.invalidate_caches()
    sys.modules.pop("our_sender", None)
    assert run("autosys", "deliver", "--transport", "our_sender:send") == 2
    shown = capsys.readouterr().err
    assert shown == f"jobrota: the transport our_sender:send cannot be imported: {told}\n"


@pytest.mark.parametrize("text", ["{", "{x"])
def test_a_text_that_looks_like_a_table_is_no_transport(
    text: str, pending: jobrota.JobLedger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBROTA_TRANSPORT", text)
    assert run("autosys", "deliver") == 2
    assert f"the transport '{text}' is no kind: give run-command, sendevent, " in capsys.readouterr().err


def test_notebooks_read_the_same_setting(
    pending: jobrota.JobLedger, autosys: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, password = autosys.autosys_credentials
    monkeypatch.setenv("AUTOSYS_PASSWORD", password)
    spec = f"{autosys.autosys_url} user={user} password_env=AUTOSYS_PASSWORD"
    monkeypatch.setenv("JOBROTA_TRANSPORT", spec)
    assert jobrota.autosys_update_runner().delivered == 1
    pending.log_job_completion("b.sas", "B", "SUCCESS")
    monkeypatch.delenv("JOBROTA_TRANSPORT")
    jobrota.configure(transport=spec)
    assert jobrota.autosys_update_runner().delivered == 1
    jobrota.configure(transport="ssh user=autosys")
    with pytest.raises(jobrota.InvalidInputError, match="no inventory is configured"):
        jobrota.autosys_update_runner()
    jobrota.configure(inventory=["vm1"])
    with pytest.raises(jobrota.InvalidInputError, match="key_file"):
        jobrota.autosys_update_runner()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (" ", "the transport is empty"),
        ("ssh", "the transport ssh needs user"),
        ("web-services", "the transport web-services needs base_url"),
        ("ssh user=a usr=b", "the transport ssh has no option usr; it has agent, autostatus, "),
        ("ssh user=a env=b", "the transport ssh has no option env"),
        ("run-command credential=b subscription_id=a", "has no option credential"),
        ("ssh user=a user=b", "the transport ssh has user twice"),
        ("ssh autosys", "has 'autosys' in place of NAME=VALUE"),
        ("ssh user='a", "has a quotation mark without its end"),
        ("ssh user=a port=ssh", "port of the transport ssh is 'ssh', and needs a whole number"),
        ("https://a accepted=200;201", "needs whole numbers with commas"),
        ("https://a allow_http=yes", "it can be true or false"),
        ("https://a events=x", r"write it into \[transport.events\]"),
        ("https://a password=hidden", "takes no password as text, which others can read"),
        ("https://a user=u password_env=NONE", "variable NONE, which password_env names, is not set"),
        ("https://a user=u password_file=none", "file none, which password_file names, cannot be read: No such file"),
        ("https://a user=u password_file=/dev/null", "file /dev/null, which password_file names, is empty"),
        ("none_such:send", "cannot be imported"),
        ("json:none", "the transport json:none does not exist"),
        ("json:__name__", "is no function"),
        ("json:dumps thread_safe=true", "is a callable without options: leave out thread_safe"),
    ],
)
def test_what_describes_no_transport(text: str, told: str) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=told) as raised:
        transport_from_text(text, selector)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("sendevent", "sendevent"),
        ("/opt/our client/sendevent", "/opt/our client/sendevent"),
        ("/opt/o'brien/send event", "/opt/o'brien/send event"),
        ("/opt/sendevent env_file=/opt/profile timeout=90s", "/opt/sendevent"),
        ("sendevent program=/opt/sendevent", "/opt/sendevent"),
    ],
)
def test_a_path_is_that_of_sendevent(text: str, program: str) -> None:
    assert transport_from_text(text, selector).program == program
