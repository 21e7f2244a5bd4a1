"""The command: exit codes, one line per error, and what it prints."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import jobrota
from support import run


def one_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("jobrota: ")
    return lines[0]


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["compare", "--help"], ["autosys", "deliver", "--help"]]
)
def test_help_exits_0(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "jobrota" in printed
    assert "(default: None)" not in printed


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["compare", "--mode", "some"],
        ["compare", "--async-only", "--sequential-only"],
        ["compare", "--concurrent", "0"],
        ["compare", "--limit-jobs", "-1"],
        ["compare", "--time-scale", "2m"],
        ["compare", "--time-scale", "0"],
        ["demo", "--speed", "0"],
        ["autosys", "deliver", "--backoff", "true"],
        ["autosys"],
    ],
)
def test_wrong_usage_is_2(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr().err
    assert "usage:" in shown
    assert not arguments[2:] or arguments[-2] in shown.splitlines()[-1]


@pytest.mark.parametrize(
    "url", ["http://user:secret@viya.example.com", "https://u:se@secret@viya", "u:secret@viya", "http://viya/?t=secret"]
)
def test_a_password_in_the_url_is_not_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "--limit-jobs", "0", "--base-url", url) == 0
    shown = capsys.readouterr()
    assert "viya" in shown.out
    assert run("compare", "--base-url", url) == 2
    refused = capsys.readouterr()
    assert "base_url" in refused.err
    assert "secret" not in shown.out + shown.err + refused.out + refused.err


def test_the_password_of_a_proxy_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "--limit-jobs", "0", "--proxy", "http://user:hidden@proxy.example.com:3128") == 0
    shown = capsys.readouterr()
    assert "proxy.example.com:3128" in shown.out
    assert "hidden" not in shown.out + shown.err


def test_limit_jobs_0_shows_the_configuration_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "--limit-jobs", "0") == 0
    shown = capsys.readouterr().out
    assert jobrota.__version__ in shown
    for text in ("batch", "Autoscaling POC Context", "SAS Job Execution compute context", "config/job_configs.json"):
        assert text in shown
    assert not Path("results").exists()
    assert run("compare", "--limit-jobs", "0", "--connect-timeout", "1000d") == 2
    assert "connect_timeout" in one_line(capsys.readouterr().err)


def test_a_reader_that_ends_first_is_no_failure(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    # A table is printed by another library.
    for arguments in (["compare", "--limit-jobs", "0"], ["ledger", "status", "--ledger", ledger.root]):
        command = [sys.executable, "-m", "jobrota", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert (process.stderr.read(), process.wait(30)) == (b"", 141)


@pytest.mark.parametrize(
    "arguments",
    [
        ("autosys", "deliver", "--stale-after", "soon"),
        ("autosys", "unnotified", "--older-than", "soon"),
        ("ledger", "maintain", "--retain-hours", "7x"),
    ],
)
def test_a_time_of_another_form_is_wrong_usage(
    arguments: tuple[str, ...], ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--ledger", ledger.root) == 2
    assert arguments[-2] in capsys.readouterr().err


@pytest.mark.parametrize("command", [("autosys", "status"), ("vms", "check"), ("compare",)])
def test_a_missing_setting_is_explained_with_the_settings_file(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.toml").write_text('ledgr = "x"\n[viya]\nbase_url = "x"\n', encoding="utf-8")
    monkeypatch.setenv("JOBROTA_CONFIG", "mine.toml")
    assert run(*command) == 2
    assert "mine.toml has no " in (line := one_line(capsys.readouterr().err)), line
    assert line.endswith("and these keys of it are no settings: ledgr, viya")


def test_a_setting_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path("jobrota.toml").write_text("ledger = 5\n", encoding="utf-8")
    assert run("autosys", "status") == 2
    assert one_line(capsys.readouterr().err).endswith("ledger in jobrota.toml must be text in quotes")


def test_compare_without_a_server_names_all_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare") == 2
    line = one_line(capsys.readouterr().err)
    for way in ("--base-url", "JOBROTA_BASE_URL", "SAS_BASE_URL", "jobrota.toml"):
        assert way in line


def test_compare(sandbox: jobrota.Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAS_BASE_URL", sandbox.viya_url)
    common = ("--tokens", sandbox.tokens, "--jobs", sandbox.jobs, "--limit-jobs", "2", "--results-dir", "out")
    assert run("compare", *common, "--mode", "all") == 0
    printed = capsys.readouterr().out
    assert "time saved: " in printed
    (path,) = Path("out").glob("pooled_jobs_comparison_*.json")
    assert str(path) in printed
    assert json.loads(path.read_text())["async_execution"]["successful_jobs"] == 2


def test_compare_with_an_error_is_one_line(sandbox: jobrota.Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "--base-url", sandbox.viya_url, "--tokens", "no-such.json", "--jobs", sandbox.jobs) == 1
    captured = capsys.readouterr()
    assert "no-such.json" in one_line(captured.err)
    assert "Traceback" not in captured.err


def test_select(sandbox: jobrota.Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vms = tmp_path / "vms.json"
    vms.write_text(json.dumps(sandbox.inventory.vms))
    chosen = []
    for _ in range(3):
        assert run("select", "--inventory", vms, "--cursor", tmp_path, "--probe", sandbox.probe, "--json") == 0
        chosen.append(json.loads(capsys.readouterr().out)["vm"])
    assert len(set(chosen)) == 3
    assert run("select", chosen[0], "--inventory", vms, "--cursor", tmp_path, "--probe", sandbox.probe) == 0
    assert capsys.readouterr().out.startswith(f"Selected VM: {chosen[0]} (IP: ")


def test_drain_and_restore_are_shared(
    sandbox: jobrota.Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = tmp_path / "vms.json"
    inventory.write_text(json.dumps(sandbox.inventory.vms))
    here: list[str | Path] = ["--inventory", inventory, "--cursor", tmp_path / "cursor"]
    assert run("vms", "drain", "vm1", "vm2", *here) == 0
    assert "no process has used the cursor" in capsys.readouterr().err
    assert run("select", *here, "--probe", sandbox.probe) == 0
    assert "Selected VM: vm4" in capsys.readouterr().out
    assert run("vms", "restore", "vm2", *here) == 0
    capsys.readouterr()
    assert run("vms", "status", *here, "--json") == 0
    rows = {row["vm"]: row for row in json.loads(capsys.readouterr().out)}
    assert {vm: row["drained"] for vm, row in rows.items()} == {"vm1": True, "vm2": False, "vm3": False, "vm4": False}
    assert (rows["vm4"]["selections"], rows["vm4"]["share"], rows["vm1"]["last_selected"]) == (1, 1.0, None)
    assert run("vms", "check", *here, "--probe", sandbox.probe) == 1  # vm3 is down
    shown = capsys.readouterr().out
    (down,) = (line for line in shown.splitlines() if line.startswith("vm3"))  # no terminal is there to cut the line
    assert "refused" in down
    assert run("vms", "status", "vm1", *here) == 0
    assert "vm4" not in capsys.readouterr().out
    assert run("vms", "drain", "vm9", *here) == 2
    assert "vm9" in one_line(capsys.readouterr().err)
    assert run("vms", "drain", "vm1", "--inventory", inventory, "--cursor", "process") == 2
    assert "ends with the command" in one_line(capsys.readouterr().err)


def test_select_unknown_vm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("select") == 2
    assert "--inventory" in one_line(capsys.readouterr().err)
    (tmp_path / "vms.csv").write_text("name\nvm1\n")
    assert run("select", "vm2", "--inventory", tmp_path / "vms.csv") == 2
    assert "vm2" in one_line(capsys.readouterr().err)


def test_deliver_and_status(ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    for name in "ABC":
        ledger.log_job_completion("a.sas", name, "SUCCESS")
    with jobrota.Sandbox(refuse_first=["B"]) as sandbox:
        assert run("autosys", "deliver", "--ledger", ledger.root, "--sendevent", sandbox.sendevent) == 1
        printed = capsys.readouterr().out
        assert "2 delivered, 1 failed" in printed
        assert "  failed: B SUCCESS: " in printed
        assert run("autosys", "status", "--ledger", ledger.root) == 0
        assert re.search(r"job_notifications +3 +1 +2 ", capsys.readouterr().out)
        assert run("autosys", "deliver", "--ledger", ledger.root, "--sendevent", sandbox.sendevent, "--json") == 0
        assert json.loads(capsys.readouterr().out)["delivered"] == 1
    assert run("autosys", "status", "--ledger", ledger.root, "--json") == 0
    assert json.loads(capsys.readouterr().out)["notifications"]["pending"] == 0


@pytest.mark.parametrize("table", ["job_notifications", "autosys_job_log"])
def test_a_row_fails_the_run_that_parks_it_and_no_later_one(
    table: str, ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ledger.log_job_completion if table == "job_notifications" else ledger.log_job_execution
    log("a.sas", "two words", "SUCCESS")
    with jobrota.Sandbox(viya=False) as sandbox:
        deliver = ("autosys", "deliver", "--table", table, "--ledger", ledger.root, "--sendevent", sandbox.sendevent)
        assert run(*deliver, "--dry-run") == 1
        assert run(*deliver) == 1
        log("a.sas", "A", "SUCCESS")
        capsys.readouterr()
        assert run(*deliver) == 0
        assert "1 delivered, 0 failed, 1 parked" in capsys.readouterr().out
        assert run(*deliver, "--dry-run") == 0
        assert run(*deliver, "--fail-on", "parked") == 1
        assert run(*deliver, "--fail-on", "parked", "--dry-run") == 1
        assert run("autosys", "redrive", "--all", "--table", table, "--ledger", ledger.root) == 0
        assert run(*deliver) == 1, "it is parked again"


def test_what_this_version_does_not_support_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ledger", "status", "--ledger", "/dbfs/ledger") == 2
    assert "/dbfs" in one_line(capsys.readouterr().err)


def test_a_missing_ledger_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("autosys", "status") == 2
    assert "JOBROTA_LEDGER" in one_line(capsys.readouterr().err)
    assert run("autosys", "status", "--ledger", tmp_path / "none") == 1
    assert "none" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_cancel_jobs_and_keep_results(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with jobrota.Sandbox(autosys=False, speed=150) as sandbox:
        command = [sys.executable, "-m", "jobrota", "compare", "--base-url", sandbox.viya_url, "--async-only"]
        command += ["--tokens", str(sandbox.tokens), "--jobs", str(sandbox.jobs), "--mode", "all"]
        command += ["--results-dir", str(tmp_path), "--time-scale", "150"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith("async: ")  # at least one job has ended, others have not
            process.send_signal(number)
            assert process.wait(timeout=60) == code
            message = one_line(process.stderr.read())
    (result,) = tmp_path.glob("pooled_jobs_comparison_*.json")
    assert result.name in message
    arm = json.loads(result.read_text())["async_execution"]
    assert arm["successful_jobs"] >= 1
    assert "canceled" in {job["status"] for job in arm["jobs"]}


def test_the_sandbox_runs_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "jobrota", "sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while not lines[-1].startswith("Ctrl-C"):
            assert lines[-1], lines
            lines.append(process.stdout.readline())
        (inventory,) = (Path(line.split()[1]) for line in lines if line.startswith("  inventory "))
        assert jobrota.Inventory(inventory).names == ["vm1", "vm2", "vm3", "vm4"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert lines[0].startswith("SAS Viya    http://127.0.0.1:")


def test_the_demo_keeps_its_promises_on_a_few_jobs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("demo", "--jobs", "4", "--speed", "400", "--results-dir", tmp_path / "results") == 0
    printed = capsys.readouterr().out
    for text in (
        "sandbox",
        "Selections per VM",
        "Comparison",
        "Deliveries by outcome",
        "Ledger at the end",
        "result  ",
    ):
        assert text in printed
    assert "did not hold" not in printed
    assert list((tmp_path / "results").glob("pooled_jobs_comparison_*.json"))


def test_demo_refuses_nonempty_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()
    assert run("demo", "--ledger", tmp_path) == 2
    assert "not empty" in one_line(capsys.readouterr().err)
