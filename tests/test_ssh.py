"""Delivering over SSH, to OpenSSH's own server with the sandbox's `sendevent` behind it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota.autosys import Ssh
from sshd import USER, Sshd, new_key
from support import column

ADDRESSES = {"vm1": "127.0.0.1", "vm2": "127.0.0.2", "vm3": "127.0.0.3"}


def answers(vm: str) -> tuple[str, str]:
    return ADDRESSES[vm], "nic"


def selector(*vms: str) -> jobrota.RoundRobinSelector:
    return jobrota.RoundRobinSelector(list(vms), cursor="process", probe=answers)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    servers = Sshd(tmp_path / "sshd")
    yield servers
    servers.stop()


@pytest.fixture
def sandbox() -> Iterator[jobrota.Sandbox]:
    with jobrota.Sandbox(viya=False) as sandbox:
        yield sandbox


def ssh(sshd: Sshd, sandbox: jobrota.Sandbox, *vms: str, **options: Any) -> Ssh:
    program = str(sandbox.sendevent)
    usual = {
        "user": USER,
        "port": sshd.port,
        "key_file": sshd.key,
        "known_hosts": sshd.known_hosts,
        "program": program,
        "autostatus": str(Path(program).with_name("autostatus")),
    }
    return Ssh(selector(*(vms or ("vm1",))), **{**usual, **options})


def notify(ledger: jobrota.JobLedger, *jobs: str, status: str = "SUCCESS") -> None:
    for job in jobs:
        ledger.log_job_completion(f"{job}.sas", job, status)


def deliveries(ledger: jobrota.JobLedger) -> list[dict[str, Any]]:
    table = ledger.deliveries()
    names = ["job_id", "outcome", "detail", "vm"]
    rows = zip(*(column(table, name) for name in names), strict=True)
    return [row for row in (dict(zip(names, row, strict=True)) for row in rows) if row["outcome"] != "sending"]


def test_batch_shares_one_connection(ledger: jobrota.JobLedger, sshd: Sshd) -> None:
    jobs = [f"J{number}" for number in range(60)]
    with jobrota.Sandbox(viya=False, refuse_first=["J7", "J59"]) as sandbox:
        sshd.start("127.0.0.1")
        notify(ledger, *jobs)
        updater = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox))
        report = updater.run()
        assert (report.delivered, report.failed, report.parked) == (58, 2, 0)
        wrong = {failure["job_id"]: failure["outcome"] for failure in report.failures}
        assert wrong == {"J7": "failed", "J59": "failed"}
        assert updater.run().delivered == 2
        assert sorted(event["job"] for event in sandbox.autosys_events()) == sorted(jobs)
    assert {row["vm"] for row in deliveries(ledger)} == {"vm1"}
    assert sshd.logins("127.0.0.1") == 1, "one connection for 62 commands in two cycles"


def test_batches_rotate_and_fail_over(ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox) -> None:
    sshd.start("127.0.0.1")
    sshd.start("127.0.0.3")  # there is no server at vm2
    jobs = [f"J{number}" for number in range(40)]
    notify(ledger, *jobs)
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, "vm1", "vm2", "vm3", batch=4)).run()
    assert (report.delivered, report.failed) == (40, 0)
    assert sorted(event["job"] for event in sandbox.autosys_events()) == sorted(jobs)
    assert {row["vm"] for row in deliveries(ledger)} == {"vm1", "vm3"}


def test_no_vm_left_gives_every_reason(ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox) -> None:
    sshd.start("127.0.0.1", known=False)
    notify(ledger, "A")
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, "vm1", "vm2")).run()
    assert (report.failed, report.pending) == (1, 1)
    detail = report.failures[0]["detail"]
    assert "vm1: the host key SHA256:" in detail
    assert "is not known" in detail
    assert "vm2: 127.0.0.2 port" in detail
    assert not sandbox.autosys_events()


def test_a_host_key_that_has_changed_is_refused(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    sshd.start("127.0.0.1", known=False)
    sshd.know("127.0.0.1", new_key(tmp_path / "other"))
    notify(ledger, "A")
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox)).run()
    assert report.failed == 1
    assert "CHANGED" in report.failures[0]["detail"]
    assert sshd.logins("127.0.0.1") == 0


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_of_every_kind_with_and_without_a_passphrase(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path, kind: str
) -> None:
    sshd.start("127.0.0.1", kind=kind)
    for passphrase in ("", "open sesame"):
        key = new_key(tmp_path / f"key{len(passphrase)}", kind, passphrase)
        sshd.authorize(key)
        notify(ledger, "A")
        transport = ssh(sshd, sandbox, key_file=key, key_passphrase=passphrase or None)
        assert jobrota.AutosysUpdater(ledger, transport).run().delivered == 1
    with pytest.raises(jobrota.InvalidInputError, match="encrypted; give key_passphrase"):
        ssh(sshd, sandbox, key_file=key)
    with pytest.raises(jobrota.InvalidInputError, match="cannot be opened with this key_passphrase") as error:
        ssh(sshd, sandbox, key_file=key, key_passphrase="hocus pocus")
    assert "hocus" not in str(error.value)


def test_an_agent_has_the_key(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd.start("127.0.0.1")
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as agent:
        try:
            while not socket.exists():
                assert agent.poll() is None
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            stranger = new_key(tmp_path / "stranger")
            subprocess.run(["ssh-add", "-q", str(stranger), str(sshd.key)], check=True, stderr=subprocess.DEVNULL)
            notify(ledger, "A")
            assert jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, key_file=None)).run().delivered == 1
        finally:
            agent.send_signal(signal.SIGTERM)


def test_a_key_that_is_not_accepted_says_so(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    sshd.start("127.0.0.1")
    notify(ledger, "A")
    stranger = new_key(tmp_path / "stranger")
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, key_file=stranger)).run()
    assert "authorized_keys" in report.failures[0]["detail"]


def test_a_key_that_others_can_read_is_not_used(sshd: Sshd, sandbox: jobrota.Sandbox) -> None:
    sshd.key.chmod(0o644)
    with pytest.raises(jobrota.InvalidInputError, match="can be read by others"):
        ssh(sshd, sandbox)


def test_no_character_is_interpreted_on_either_side(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    sshd.start("127.0.0.1")
    mark = tmp_path / "mark"
    nasty = [f"$(touch {mark})", f"`touch {mark}`", f"'; touch {mark}; '", 'a"b', "a\\b", "ä€", "-x", "!!", "*", "a  b"]
    for number, name in enumerate(nasty):
        ledger.log_job_completion(name, f"J{number}", "SUCCESS")
    transport = ssh(sshd, sandbox, comment="file {file_name}")
    assert jobrota.AutosysUpdater(ledger, transport).run().delivered == len(nasty)
    comments = {event["job"]: event["comment"] for event in sandbox.autosys_events()}
    assert comments == {f"J{number}": f"file {name}" for number, name in enumerate(nasty)}
    assert not mark.exists()


def test_an_environment_file_is_sourced_over_there(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    sshd.start("127.0.0.1")
    env_file = tmp_path / "autosys.sh"
    env_file.write_text(f"PATH={Path(sandbox.sendevent).parent}:$PATH; export PATH; echo noise\n")
    notify(ledger, "A")
    transport = ssh(sshd, sandbox, program="sendevent", env_file=str(env_file))
    assert jobrota.AutosysUpdater(ledger, transport).run().delivered == 1
    notify(ledger, "B")
    transport = ssh(sshd, sandbox, program="sendevent", env_file="/nonexistent")
    report = jobrota.AutosysUpdater(ledger, transport).run()
    assert report.failed == 1
    assert "env_file cannot be read" in report.failures[0]["detail"]


def test_missing_program_is_a_failure(ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox) -> None:
    sshd.start("127.0.0.1")
    notify(ledger, "A")
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, program="/nonexistent/sendevent")).run()
    assert (report.failed, report.unknown) == (1, 0)
    assert "cannot be run there (exit code 127)" in report.failures[0]["detail"]


@pytest.mark.parametrize("code", [126, 127])
def test_a_wrapper_that_sent_and_then_failed_is_not_run_on_the_next_vm(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path, code: int
) -> None:
    sshd.start("127.0.0.1")
    sshd.start("127.0.0.2")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n"{sandbox.sendevent}" "$@"\nexit {code}\n')
    wrapper.chmod(0o755)
    notify(ledger, "A")
    transport = ssh(sshd, sandbox, "vm1", "vm2", program=str(wrapper))
    report = jobrota.AutosysUpdater(ledger, transport).run()
    assert (report.failed, len(sandbox.autosys_events())) == (1, 1)
    assert f"sendevent ended with exit code {code}" in report.failures[0]["detail"]


def test_confirmation_reads_the_status_back(ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox) -> None:
    sshd.start("127.0.0.1")
    notify(ledger, "A", status="TERMINATED")
    assert jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox), confirm=True).run().delivered == 1
    assert "confirmed: AutoSys shows TERMINATED" in deliveries(ledger)[0]["detail"]


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_broken_connection_is_unknown(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    """The server dies while the commands run: their outcome is unknown, and they are sent again, marked."""
    sshd.start("127.0.0.1")
    fifo = tmp_path / "begun"
    os.mkfifo(fifo)
    program = script(tmp_path / "hangs", f"echo begun > {fifo}\nexec sleep 60\n")
    notify(ledger, "A")
    command = """
import sys, jobrota
from jobrota.autosys import Ssh
ledger, port, key, known, program, user = sys.argv[1:]
selector = jobrota.RoundRobinSelector({"vm1": {"ip_address": "127.0.0.1"}}, cursor="process", probe=f"tcp:{port}")
way = Ssh(selector, user=user, port=int(port), key_file=key, known_hosts=known, program=program, autostatus=None)
report = jobrota.AutosysUpdater(jobrota.JobLedger(ledger), way).run()
print(report.unknown, report.failures[0]["detail"])
"""
    arguments = [str(ledger.root), str(sshd.port), str(sshd.key), str(sshd.known_hosts), program, USER]
    with subprocess.Popen([sys.executable, "-c", command, *arguments], stdout=subprocess.PIPE, text=True) as run:
        assert fifo.read_text() == "begun\n"
        sshd.kill("127.0.0.1")
        out, _ = run.communicate(timeout=60)
    assert out.startswith("1 ")
    assert "the connection broke before the command's exit code came" in out
    sshd.start("127.0.0.1")
    assert jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, autostatus=None)).run().delivered == 1
    assert any(
        "whether attempt 1 arrived is unknown" in (detail or "") for detail in column(ledger.deliveries(), "detail")
    )


def test_command_timeout_is_unknown(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    sshd.start("127.0.0.1")
    program = script(tmp_path / "hangs", "echo so far so good\nexec sleep 60\n")
    notify(ledger, "A")
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, program=program, timeout=1)).run()
    assert report.unknown == 1
    assert "did not end within 1 s" in report.failures[0]["detail"]
    assert "so far so good" in report.failures[0]["detail"]


def test_what_a_command_leaves_behind_is_not_waited_for(
    ledger: jobrota.JobLedger, sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    sshd.start("127.0.0.1")
    program = script(tmp_path / "leaves", "sleep 60 &\necho CAUAJM_I_1 done\n")
    notify(ledger, "A")
    report = jobrota.AutosysUpdater(ledger, ssh(sshd, sandbox, program=program, timeout=30)).run()
    assert report.delivered == 1


def test_no_secret_is_shown(sshd: Sshd, sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    key = new_key(tmp_path / "locked", passphrase="open sesame")
    transport = ssh(sshd, sandbox, key_file=key, key_passphrase="open sesame")
    assert "sesame" not in repr(transport)
    assert repr(transport) == f'Ssh(user="{USER}", port={sshd.port})'


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"user": ""}, "user is empty"),
        ({"user": "-oProxyCommand=x"}, "starts with '-'"),
        ({"run_as": "-i"}, "starts with '-'"),
        ({"port": 0}, "port must be"),
        ({"port": 70000}, "port must be"),
        ({"sessions": 0}, "at least 1"),
        ({"timeout": 0}, "more than 0"),
        ({"comment": "-x"}, "must start with a letter"),
        ({"key_file": "/nonexistent"}, "cannot be read"),
        ({"program": "a\nb"}, "control character"),
    ],
)
def test_arguments_that_can_never_work_are_refused(
    sshd: Sshd, sandbox: jobrota.Sandbox, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=text):
        ssh(sshd, sandbox, **options)
