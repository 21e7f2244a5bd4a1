"""One grammar for durations, in every argument and every option of a command."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota import autosys
from jobrota._native import duration_seconds
from jobrota.cli import build_parser
from jobrota.viya import ViyaSession
from jobrota.webhook import Webhook
from support import REPOSITORY, answers, run

ACCEPTED: list[tuple[Any, float]] = [
    (0.25, 0.25),
    (90, 90),
    ("90", 90),
    ("0.5", 0.5),
    ("250ms", 0.25),
    ("90s", 90),
    ("90 s", 90),
    ("15m", 900),
    ("2 minutes", 120),
    ("1h30m", 5400),
    ("1h 30m", 5400),
    ("2d", 172_800),
    (timedelta(minutes=15), 900),
]
REFUSED: list[Any] = [
    "",
    " ",
    "soon",
    "-5m",
    "1h30",
    "5x",
    "P1D",
    "nan",
    "inf",
    -1,
    float("nan"),
    float("inf"),
    True,
    b"1s",
    [],
]


def selector(**options: Any) -> jobrota.RoundRobinSelector:
    return jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers, **options)


def updater(**options: Any) -> jobrota.AutosysUpdater:
    # A callable cannot read a status, which `confirm` needs.
    transport: Any = autosys.SendEvent(autostatus="autostatus") if "confirm" in options else lambda *row: True
    return jobrota.AutosysUpdater(jobrota.JobLedger("/tmp/no-such-ledger"), transport, **options)


def runner(**options: Any) -> jobrota.ViyaComparisonRunner:
    return jobrota.ViyaComparisonRunner("http://127.0.0.1:1", **options)


def ssh(**options: Any) -> autosys.Ssh:
    return autosys.Ssh(selector(), user="me", agent="/tmp/agent", **options)


def run_command(**options: Any) -> autosys.RunCommand:
    return autosys.RunCommand(selector(), subscription_id="0" * 8 + "-0000-0000-0000-" + "0" * 12, **options)


def web_services(**options: Any) -> autosys.WebServices:
    return autosys.WebServices("https://autosys.example.com", **options)


def session(**options: Any) -> ViyaSession:
    return ViyaSession("http://127.0.0.1:1", **options)


def ledger(**options: Any) -> jobrota.JobLedger:
    return jobrota.JobLedger("/tmp/no-such-ledger", **options)


def sandbox(**options: Any) -> None:
    with jobrota.Sandbox(viya=False, autosys=False, vms=0, vms_down=0, **options):
        pass


ARGUMENTS: list[tuple[Callable[..., Any], list[str]]] = [
    (selector, ["timeout", "health_ttl", "health_max_age", "hold_ttl"]),
    (updater, ["stale_after", "lease_ttl", "backoff"]),
    (runner, ["poll_interval", "job_timeout", "correlation_timeout", "pause", "connect_timeout", "read_timeout"]),
    (ssh, ["connect_timeout", "timeout"]),
    (run_command, ["event_timeout", "busy_timeout", "timeout"]),
    (web_services, ["timeout"]),
    (autosys.SendEvent, ["timeout"]),
    (autosys.Rehearsal, ["answer_after"]),
    (session, ["connect_timeout", "read_timeout"]),
    (ledger, ["commit_timeout"]),
    (sandbox, ["token_lifetime"]),
]
NAMED = [(make, name) for make, names in ARGUMENTS for name in names]


@pytest.mark.parametrize(("make", "name"), NAMED, ids=[f"{make.__name__}-{name}" for make, name in NAMED])
def test_every_argument_takes_every_spelling(make: Callable[..., Any], name: str) -> None:
    for given in (90, 90.0, "90", "90s", "1m30s", "1m 30s", "1.5 minutes", timedelta(seconds=90)):
        make(**{name: given})
    for wrong in REFUSED:
        if name == "backoff" and wrong is True:
            continue  # the default back-off
        with pytest.raises(jobrota.InvalidInputError):
            make(**{name: wrong})


@pytest.mark.parametrize(("given", "seconds"), ACCEPTED, ids=repr)
def test_every_spelling_means_its_seconds(given: Any, seconds: float) -> None:
    assert repr(autosys.Rehearsal(answer_after=given)) == f"Rehearsal(answer_after={seconds:g})"


def test_nested_durations(tmp_path: Path) -> None:
    updater(backoff={"first": "1m", "longest": timedelta(hours=1)})
    updater(backoff={"first": "90", "longest": "1h 30m"})
    runner(order="longest_first", durations_from={"a": 5, "b": "1h30m", "c": timedelta(minutes=1)})
    book = jobrota.JobLedger(tmp_path, storage_options={"request_delay": "1ms"})
    book.log_job_execution("a.sas", "A", "SUCCESS")
    jobrota.JobLedger(tmp_path, storage_options={"request_delay": timedelta(milliseconds=1)})
    for hours in (168, "7d", timedelta(days=7)):
        assert book.maintain(retain_hours=hours).problems == []
    with pytest.raises(jobrota.InvalidInputError, match="number of hours from 0"):
        book.maintain(retain_hours=-1)
    not_hours: list[Any] = ["7", "168", " 168.0 ", "soon", "", None, True, []]
    for wrong in not_hours:
        with pytest.raises(
            jobrota.InvalidInputError, match=r"^retain_hours must be a number of hours, text with a unit"
        ):
            book.maintain(retain_hours=wrong)


def top(**options: str) -> None:
    """The options of a command without a function in Python."""
    try:
        build_parser().parse_args(["top", *(f"--{name}={value}" for name, value in options.items())])
    except SystemExit as stop:
        raise ValueError("give another duration") from stop


CALLS: dict[str, Callable[..., Any]] = {
    "RoundRobinSelector": selector,
    "Inventory.from_azure": lambda **options: jobrota.Inventory.from_azure(
        "0" * 8 + "-0000-0000-0000-" + "0" * 12, **options
    ),
    "JobLedger": ledger,
    "JobLedger.executions_without_notification": lambda **options: ledger().executions_without_notification(**options),
    "JobLedger.maintain": lambda **options: ledger().maintain(**options),
    "storage_options": lambda **options: ledger(storage_options=options),
    "AutosysUpdater": updater,
    "AutosysUpdater.run_forever": lambda **options: updater().run_forever(**options),
    "autosys.SendEvent": autosys.SendEvent,
    "autosys.WebServices": web_services,
    "autosys.Ssh": ssh,
    "autosys.RunCommand": run_command,
    "autosys.Rehearsal": autosys.Rehearsal,
    "ViyaComparisonRunner": runner,
    "ViyaSession": session,
    "Sandbox": sandbox,
    "durations_from": lambda job: runner(order="longest_first", durations_from={"a": job}),
    "definitions": lambda job: sandbox(definitions={"a": job}),
    "webhook.Webhook": partial(Webhook, "https://receiver.example/secret"),
    "doctor": jobrota.doctor,
    "jobrota top": top,
}


def listed_limits() -> list[list[str]]:
    """The rows of the table of limits in the documentation."""
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    section = page.split("\n### Limits\n", 1)[1].split("\n## ", 1)[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")
    ]


@pytest.mark.parametrize(("of", "arguments", "least", "most"), [(row[0], row[1], *row[3:]) for row in listed_limits()])
def test_limits_are_those_of_the_documentation(of: str, arguments: str, least: str, most: str) -> None:
    call = CALLS[of.split("`")[1]]
    least, most = least.strip("`"), most.strip("`")
    for name in re.findall(r"`(\w+)`", arguments.split(";")[0]):
        if least == "above 0":
            beyond, within = ["0s"], ["1ms"]
        else:
            seconds = duration_seconds(least)
            beyond, within = ["-1s"] if seconds == 0 else [f"{0.9 * seconds:g}s"], [least]
        if most == "none":
            within += ["1000000d"]
        else:
            beyond, within = [*beyond, f"{most} 1s"], [*within, most]
        for duration in beyond:
            with pytest.raises(ValueError, match=r"must be|give|wait"):
                call(**{name: duration})
        sends_requests = of in ("`Inventory.from_azure`", "`doctor`", "`storage_options`")
        for duration in [] if sends_requests else within:
            with suppress(jobrota.NotFoundError):  # there is no ledger
                call(**{name: duration})


def test_all_options_that_are_durations_have_limits() -> None:
    page = (REPOSITORY / "docs" / "command.md").read_text(encoding="utf-8")
    listed = {option for row in listed_limits() for option in re.findall(r"--[\w-]+", row[2])}
    assert listed == {"--retain-hours", *re.findall(r"`(--[\w-]+) TIME`", page)}


@pytest.mark.parametrize("every", [0, 0.0, "0s", "0", timedelta(0), "0.9ms", 1e-9])
def test_cycles_without_a_pause_are_refused(every: Any) -> None:
    for call in (updater().run_forever, updater().run_forever_async):
        with pytest.raises(ValueError, match=r"^every must be a duration from 1 ms"):
            call(every)


@pytest.mark.parametrize("every", ["0s", "0", "-1", ""])
def test_the_command_refuses_cycles_without_a_pause(
    every: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("autosys", "deliver", "--ledger", tmp_path, f"--every={every}") == 2
    assert "every must be a " in capsys.readouterr().err


@pytest.mark.parametrize("given", ["90", " 90 ", "9e1", "90s", "1m30s", "1m 30s", "1.5 minutes", "90000ms"])
def test_every_option_takes_every_spelling(given: str, tmp_path: Path) -> None:
    root = str(tmp_path / "ledger")
    jobrota.JobLedger(root).log_job_execution("a.sas", "A", "SUCCESS")
    jobrota.JobLedger(root).log_job_completion("a.sas", "A", "SUCCESS")
    assert run("autosys", "status", "--ledger", root, "--since", given) == 0
    assert run("autosys", "unnotified", "--ledger", root, "--older-than", given) == 0
    options = ("--backoff", given, "--stale-after", given, "--dry-run", "--sendevent", "/bin/true")
    assert run("autosys", "deliver", "--ledger", root, *options) == 0
    assert run("vms", "check", "127.0.0.1", "--cursor", "process", "--probe", "tcp:1", "--timeout", given) == 1
    assert run("doctor", "--ledger", root, "--timeout", given) in (0, 1)
    times = [
        option
        for name in ("job-timeout", "poll-interval", "correlation-timeout", "pause", "connect-timeout", "read-timeout")
        for option in (f"--{name}", given)
    ]
    assert run("compare", "--limit-jobs", "0", "--base-url", "http://127.0.0.1:1", *times) == 0
    assert run("ledger", "maintain", "--ledger", root, "--retain-hours", given) == 0


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf", "1h30", "P1D"])
def test_every_option_refuses_the_rest(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("job-timeout", "poll-interval", "correlation-timeout", "pause", "connect-timeout", "read-timeout"):
        assert run("compare", "--limit-jobs", "0", f"--{option}={given}") == 2
        assert "duration" in capsys.readouterr().err
    assert run("vms", "check", "127.0.0.1", f"--timeout={given}") == 2
    assert run("doctor", f"--timeout={given}") == 2
    assert run("ledger", "maintain", f"--retain-hours={given}") == 2
    assert run("autosys", "status", f"--since={given}") == 2
