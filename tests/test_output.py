"""What a command prints where the output is closed, full or of another encoding, and with `--quiet`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jobrota
from support import run

COMMAND = shlex.join([sys.executable, "-m", "jobrota"])


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of a shell, in which `jobrota` is this command."""
    line = command.replace("jobrota ", f"{COMMAND} ", 1)
    env = os.environ | variables
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False, env=env)


def lost(text: str) -> bool:
    return text.count("the standard output cannot be written") == len(text.splitlines()) == 1


@pytest.fixture
def pending(ledger: jobrota.JobLedger) -> jobrota.JobLedger:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    return ledger


@pytest.mark.parametrize("output", [">&-", "> /dev/full", ">&- <&-"])
def test_a_delivery_goes_on_without_an_output(output: str, pending: jobrota.JobLedger) -> None:
    done = shell(f"jobrota autosys deliver --ledger {pending.root} --sendevent /bin/true {output}")
    assert done.returncode == 0
    assert lost(done.stderr)
    assert pending.pending_notifications().num_rows == 0
    assert shell(f"jobrota autosys deliver --ledger {pending.root} --sendevent true >&- 2>&-").returncode == 0


def test_cycles_go_on_without_an_output(pending: jobrota.JobLedger, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    os.mkfifo(sent)
    program = tmp_path / "sendevent"
    program.write_text(f"#!/bin/sh\necho $* > {sent}\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "jobrota", "autosys", "deliver", "--every", "100ms"]
    command += ["--ledger", pending.root, "--sendevent", str(program)]
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert "-J A" in sent.read_text()
        pending.log_job_completion("b.sas", "B", "SUCCESS")
        assert "-J B" in sent.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert lost(process.stderr.read())


@pytest.mark.parametrize("command", ["autosys status", "autosys parked", "autosys parked --json"])
@pytest.mark.parametrize("output", [">&-", "> /dev/full"])
def test_what_only_prints_fails_without_an_output(command: str, output: str, pending: jobrota.JobLedger) -> None:
    done = shell(f"jobrota {command} {output}", JOBROTA_LEDGER=pending.root)
    assert done.returncode == 1
    assert lost(done.stderr)


def test_an_output_of_another_encoding_gets_escape_sequences(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "名", "SUCCESS")
    variables = {"PYTHONIOENCODING": "latin-1", "JOBROTA_LEDGER": ledger.root, "JOBROTA_TRANSPORT": "/bin/false"}
    done = shell("jobrota autosys deliver --max-attempts 1", **variables)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (1, [])
    assert "parked: \\u540d SUCCESS" in done.stdout
    for command in ("autosys status", "autosys parked", "ledger status", "autosys deliver --help", "doctor"):
        done = shell(f"jobrota {command}", **variables)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_quiet_says_why_a_command_fails(
    pending: jobrota.JobLedger, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "bad.json").write_text("{")
    vms = ["--cursor", "process", "--probe", "tcp:1"]
    deliver = ["autosys", "deliver", "--ledger", pending.root, "--sendevent", "/bin/false", "--max-attempts", "1"]
    for arguments, reason in (
        (["ledger", "import", str(folder), "--ledger", pending.root], "jobrota: bad.json, line 1, record 1: "),
        (["vms", "check", "127.0.0.1", *vms], "jobrota: 127.0.0.1 is not reachable: "),
        (deliver, "jobrota: parked: A SUCCESS: "),
        ([*deliver, "--fail-on", "parked"], "jobrota: parked earlier: 1 row, "),
    ):
        assert run(*arguments, "--quiet") == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert reason in shown.err
        assert run(*arguments, "--json") in (0, 1)
        assert json.loads(capsys.readouterr().out)
    monkeypatch.setenv("JOBROTA_CONFIG", "none.toml")
    assert run("doctor", "--quiet") == 1
    assert capsys.readouterr().err.startswith("jobrota: settings file: the settings file none.toml cannot be read")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_cycle_that_is_stopped_says_what_it_did(
    number: signal.Signals, code: int, pending: jobrota.JobLedger, tmp_path: Path
) -> None:
    pending.log_job_completion("b.sas", "B", "SUCCESS")
    (tmp_path / "slow.py").write_text(
        "import sys\n"
        "def send(file_name, job_id, status):\n"
        "    print('under way', file=sys.stderr, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    return True\n"
    )
    command = [sys.executable, "-m", "jobrota", "autosys", "deliver", "--json", "--ledger", pending.root]
    command += ["--transport", "slow:send", "--concurrency", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "under way\n"
        process.send_signal(number)
        printed, said = process.communicate("go\n", timeout=60)
    report = json.loads(printed)
    assert (process.returncode, report["delivered"]) == (code, 2 - report["pending"])
    assert said.splitlines()[-1].startswith(
        "jobrota: stopped by SIGTERM; the next" if number == signal.SIGTERM else "jobrota: interrupted"
    )
