"""The command: exit codes, one line per error, and what it prints."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota.cli import build_parser
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


def test_help_of_each_command_has_no_default_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in leaves(build_parser()):
        assert run(*name.split(), "--help") == 0
        printed = capsys.readouterr().out
        assert "--help" in printed
        assert not re.search(r"default: (None|False|\[\])", printed), name


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
    assert run("compare", *common, "--mode", "all", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["async_execution"]["successful_jobs"] == 2
    assert "time saved: " in shown.err, "the text is for people, and not a part of the JSON"
    assert run("report", path, "--json") == 0
    assert Path(json.loads(capsys.readouterr().out)["report"]).is_file()


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


def test_each_failure_has_its_reason(ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        ledger.log_job_completion("a.sas", f"B{number}", "ODD")
        ledger.log_job_completion("a.sas", f"two words {number}", "SUCCESS")
    assert run("autosys", "deliver", "--dry-run", "--ledger", ledger.root) == 1
    shown = capsys.readouterr().out
    assert run("autosys", "deliver", "--sendevent", "true", "--ledger", ledger.root) == 1
    lines = capsys.readouterr().out.splitlines()
    (same,) = (line for line in lines if "no AutoSys event is mapped" in line)
    assert same.startswith(
        "  parked: 7 rows (B0 ODD, B1 ODD, B2 ODD, B3 ODD, B4 ODD, …; --json prints all): no AutoSys "
    )
    for number in range(7):
        (line,) = (line for line in lines if line.startswith(f"  parked: two words {number} SUCCESS: "))
        assert "name AutoSys refuses" in line
        assert line.replace("parked", "would be parked", 1) in shown
    assert len(lines) == 1 + 1 + 7


def test_a_cycle_that_another_one_keeps_from_sending_says_what_to_do(
    ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    codes: list[int] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        codes.append(run("autosys", "deliver", "--sendevent", "true", "--ledger", ledger.root))
        return True

    assert jobrota.AutosysUpdater(ledger, send).run().delivered == 1
    assert codes == [3]
    shown = capsys.readouterr()
    assert shown.out.startswith("0 delivered, 0 failed")
    assert "nothing was done: the next cycle delivers once that process is done" in one_line(shown.err)


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
        assert run("autosys", "parked", "--table", table, "--ledger", ledger.root) == 0
        assert "not sent  name AutoSys refuses" in capsys.readouterr().out
        assert run(*deliver, "--dry-run") == 0
        assert run(*deliver, "--fail-on", "parked") == 1
        assert run(*deliver, "--fail-on", "parked", "--dry-run") == 1
        assert run("autosys", "redrive", "--all", "--table", table, "--ledger", ledger.root) == 0
        assert run(*deliver) == 1, "it is parked again"


def test_what_this_version_does_not_support_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ledger", "status", "--ledger", "/dbfs/ledger") == 2
    assert "/dbfs" in one_line(capsys.readouterr().err)


def leaves(parser: argparse.ArgumentParser, name: str = "") -> dict[str, argparse.ArgumentParser]:
    """Each command that runs something, by its name."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        return {name.strip(): parser}
    return {
        path: leaf
        for group in groups
        for word, below in group.choices.items()
        for path, leaf in leaves(below, f"{name} {word}").items()
    }


def test_each_command_can_print_json_or_nothing() -> None:
    without_json, without_quiet = set(), set()
    for name, parser in leaves(build_parser()).items():
        options = {option for action in parser._actions for option in action.option_strings}
        without_json |= set() if "--json" in options else {name}
        without_quiet |= set() if "--quiet" in options else {name}
    # A script and a live view.
    assert without_json == {"completion", "top"}
    # Their output is their purpose, or they ask.
    assert without_quiet == {"completion", "top", "sandbox", "viya login", "viya token"}


def times(value: Any) -> Iterator[str]:
    """All texts within a JSON value that begin like a time."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from times(part)
    elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        yield value


def test_all_commands_print_times_in_one_format(
    ledger: jobrota.JobLedger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.log_job_execution("lost.sas", "LOST", "SUCCESS")
    for job in ("two words", "A", "B"):
        ledger.log_job_completion("a.sas", job, "SUCCESS")
    here = ("--ledger", ledger.root)
    vms = ("vm1", "--cursor", tmp_path / "cursor")
    assert run("select", *vms, "--probe", "icmp", "--timeout", "1ms") == 1, "this only creates the cursor"
    with jobrota.Sandbox(viya=False, refuse_first=["A"]) as sandbox:
        deliver = ("autosys", "deliver", *here, "--sendevent", sandbox.sendevent, "--backoff", "1h")
        where = ("--reason", "r", "--file", "a.sas", "--job")
        found = {}
        for code, arguments in (
            (1, deliver),
            (0, (*deliver, "--snooze", "00:00-24:00")),
            (0, ("autosys", "status", *here)),
            (0, ("autosys", "parked", *here)),
            (0, ("autosys", "unnotified", "--older-than", "0s", *here)),
            (0, ("ledger", "status", *here)),
            (0, ("autosys", "ack", *where, "A", *here)),
        ):
            capsys.readouterr()
            assert run(*arguments, "--json") == code
            out = capsys.readouterr().out
            assert out.count("\n") == 1, "one line"
            found[arguments[:2]] = list(times(json.loads(out)))
            assert run(*arguments) in (0, 1)
            text = capsys.readouterr().out
            found[arguments[:2]] += re.findall(r"\d{4}-\d\d-\d\d\S*", text)
    for command, values in found.items():
        assert values, command
        for value in values:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3,6})?Z[),]?", value), (command, value)


def test_quiet_prints_errors_alone(ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.log_job_completion("a.sas", "two words", "SUCCESS")
    assert run("autosys", "deliver", "--quiet", "--sendevent", "true", "--ledger", ledger.root) == 1
    assert run("autosys", "parked", "-q", "--ledger", ledger.root) == 0
    assert capsys.readouterr().out == ""
    assert run("autosys", "redrive", "--quiet", "--job", "none", "--ledger", ledger.root) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no row of job none is parked" in one_line(shown.err)
    assert run("autosys", "parked", "--quiet", "--json", "--ledger", ledger.root) == 2


def test_what_changes_something_prints_json_too(
    ledger: jobrota.JobLedger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: object) -> Any:
        assert run(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    for job in ("two words", "A", "A"):
        ledger.log_job_completion("a.sas", job, "SUCCESS")
    here = ("--ledger", ledger.root)
    assert run("autosys", "deliver", "--first", "two words", "--sendevent", "true", *here) == 1
    capsys.readouterr()
    assert printed("autosys", "redrive", "--all", *here) == {"redriven": 1}
    settled = printed("autosys", "skip", "--job", "two words", "--file", "a.sas", "--reason", "r", *here)
    assert (settled["job_id"], settled["settled"], settled["identical_rows_pending"]) == ("two words", "skipped", 0)
    assert settled["autosys_update_flag"] == "YES"
    cursor = ("vm1", "vm2", "--cursor", tmp_path / "cursor")
    assert printed("vms", "drain", *cursor) == [{"vm": "vm1", "drained": True}, {"vm": "vm2", "drained": True}]
    assert printed("vms", "restore", "vm1", "--cursor", tmp_path / "cursor") == [{"vm": "vm1", "drained": False}]
    assert printed("compare", "--limit-jobs", "0")["mode"] == "batch"
    (tmp_path / "none").mkdir()
    assert printed("ledger", "import", tmp_path / "none", *here)["files"] == 0
    assert printed("ledger", "maintain", *here)["tables"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("vms", "check", "--inventory", "none.json"),
        ("doctor", "--inventory", "none.json"),
        ("compare", "--base-url", "http://127.0.0.1:1", "--jobs", "none.json"),
        ("compare", "--base-url", "http://127.0.0.1:1", "--jobs", "jobs.json", "--arms", "none.json"),
        ("compare", "--base-url", "http://127.0.0.1:1", "--jobs", "jobs.json", "--ca-bundle", "none.json"),
        ("compare", "--jobs", "jobs.json", "--order", "longest_first", "--durations-from", "none.json"),
        ("compare", "--resume", "none.json"),
        ("viya", "whoami", "--base-url", "http://127.0.0.1:1", "--ca-bundle", "none.json"),
        ("autosys", "deliver", "--ledger", "ledger", "--env-file", "none.json"),
        ("ledger", "import", "none.json", "--ledger", "ledger"),
    ],
)
def test_a_file_that_an_option_names_and_that_is_not_there_is_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBROTA_BASE_URL", "http://127.0.0.1:1")
    jobrota.JobLedger("ledger").log_job_completion("a.sas", "A", "SUCCESS")
    Path("jobs.json").write_text('[{"name": "a", "definition_id": "b"}]')
    assert run(*arguments) == 2
    assert "none.json" in one_line(capsys.readouterr().err)


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
    command = [sys.executable, "-m", "jobrota", "sandbox", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert jobrota.Inventory(found["vms"]["inventory"]).names == found["vms"]["names"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    command.remove("--json")
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
    assert run("demo", "--jobs", "4", "--speed", "400", "--results-dir", tmp_path / "results", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert all(done["promises"].values())
    assert Path(done["result"]).is_file()


def test_demo_refuses_nonempty_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()
    assert run("demo", "--ledger", tmp_path) == 2
    assert "not empty" in one_line(capsys.readouterr().err)
