"""`jobrota top` in a real pseudo-terminal, beside a ledger that changes."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest
from rich.cells import cell_len

import jobrota
from jobrota.commands.top_live import in_flight
from support import run
from terminal import ENTER, LEAVE, Terminal, terminal

COMMAND = (sys.executable, "-m", "jobrota", "top", "--every", "50ms")
EVIL = "\x1b]0;owned\x07\x1b[2J[red]EVIL"


def has(text: str, terminal: Terminal) -> list[str]:
    return terminal.until(lambda screen: any(text in line for line in screen))


def ended_well(view: Terminal) -> None:
    """The terminal is as before: its own screen, a visible cursor, and keys that are shown."""
    assert view.output.index(ENTER) < view.output.index(LEAVE)
    assert view.output.rindex("\x1b[?25h") > view.output.rindex("\x1b[?25l")
    assert view.attributes_now() == view.attributes


@pytest.mark.parametrize(
    ("attempts", "numbers"),
    [
        ([(1, "sending")], [1]),
        ([(1, "sending"), (1, "delivered")], []),
        ([(1, "sending"), (1, "sending"), (1, "failed")], [1]),  # two identical rows
        ([(1, "sending"), (1, "failed"), (2, "sending")], [2]),
        ([(1, "sending"), (2, "sending")], [2, 1]),  # the first one is in doubt, and its process can go on
        ([(1, "sending"), (2, "sending"), (2, "delivered")], []),  # the first process died
        ([(1, "sending"), (0, "by_hand")], []),
        ([(1, "failed"), (2, "sending")], [2]),  # the mark is older than what was read
    ],
)
def test_a_mark_is_in_flight_until_its_row_has_an_outcome(attempts: list[tuple[int, str]], numbers: list[int]) -> None:
    row = dict.fromkeys(("table_name", "file_name", "job_id", "status", "row_timestamp"), "x")
    table = [row | {"attempt": number, "outcome": outcome} for number, outcome in attempts]
    other = row | {"job_id": "other", "attempt": 1, "outcome": "delivered"}
    assert [mark["attempt"] for mark in in_flight([other, *reversed(table)])] == numbers


def test_it_follows_a_ledger_that_changes(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", EVIL, "SUCCESS")
    Path("vms.json").write_text(json.dumps(["vm1", "vm2"]))
    cursor = ("--inventory", "vms.json", "--cursor", "cursor")
    assert run("vms", "drain", "vm2", *cursor) == 0
    sending, answer = threading.Event(), threading.Event()

    def send(file_name: str, job_id: str, status: str) -> bool:
        sending.set()
        assert answer.wait(60)
        return True

    with terminal(110, 30, *COMMAND, "--ledger", ledger.root, *cursor) as view:
        screen = has("1 pending", view)
        assert ledger.root in screen[0]
        assert "In flight: 0 rows" in "\n".join(screen)
        (drained,) = (line for line in screen if line.startswith("vm2"))
        assert "drained" in drained
        ledger.log_job_completion("b.sas", "LATER", "SUCCESS")
        has("2 pending", view)
        cycle = threading.Thread(target=jobrota.AutosysUpdater(ledger, send, concurrency=1).run)
        cycle.start()
        try:
            assert sending.wait(60)
            screen = has("In flight: 1 row sent", view)
            assert any("[red]EVIL" in line and "parked" in line for line in screen), "markup is text"
        finally:
            answer.set()
            cycle.join()
        screen = view.until(lambda screen: any("LATER" in line and "delivered" in line for line in screen))
        assert any("In flight: 0 rows" in line for line in screen)
        has("1 pending   1 parked", view)
        view.type("q")
        assert view.end() == 0
        ended_well(view)
    assert "owned" in view.output
    assert "\x1b]" not in view.output, "no escape sequence of a row reaches the terminal"
    assert "\x1b[2J[red]" not in view.output


@pytest.mark.parametrize(("columns", "lines"), [(200, 60), (80, 24), (40, 12), (20, 6)])
def test_each_size_is_filled_and_not_exceeded(columns: int, lines: int, ledger: jobrota.JobLedger) -> None:
    for number in range(40):
        ledger.log_job_completion("a.sas", f"JOB{number:02}名前" if number % 2 else f"JOB{number:02}", "SUCCESS")
    jobrota.AutosysUpdater(ledger, lambda *row: False).run()
    Path("vms.json").write_text(json.dumps([f"vm{number}" for number in range(30)]))
    options = ("--ledger", ledger.root, "--inventory", "vms.json", "--cursor", "process")
    with terminal(columns, lines, *COMMAND, *options) as view:

        def fits(columns: int, lines: int) -> None:
            screen = view.until(lambda screen: len(screen) == lines and max(map(cell_len, screen)) <= columns)
            assert any(line.startswith("40 pending") for line in screen)
            if lines >= 12:
                shown = "\n".join(screen)
                for title in ("In flight: 0 rows", "VMs: 30", "Recent outcomes", "vm0"):
                    assert title in shown
                assert sum(line.startswith("20") and "T" in line for line in screen) >= 2, "the clock and an outcome"

        fits(columns, lines)
        view.resize(columns + 7, lines + 3)
        fits(columns + 7, lines + 3)
        view.type("Q")
        assert view.end() == 0
        ended_well(view)


@pytest.mark.parametrize(("number", "code"), [("\x03", 0), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_restore_the_terminal(
    number: str | signal.Signals, code: int, ledger: jobrota.JobLedger
) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    with terminal(80, 24, *COMMAND, "--ledger", ledger.root) as view:
        has("1 pending", view)
        view.type("\x1ax")  # neither Ctrl-Z nor another key ends it
        view.type(number) if isinstance(number, str) else view.process.send_signal(number)
        assert view.end() == code
        ended_well(view)


def test_a_store_that_is_away_is_shown_until_it_is_back(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    root = Path(ledger.root)
    with terminal(100, 24, *COMMAND, "--ledger", ledger.root) as view:
        has("1 pending", view)
        away = shutil.move(root, root.with_name("away"))
        has("not up to date: ", view)
        shutil.move(away, root)
        view.until(lambda screen: bool(screen) and not any("not up to date" in line for line in screen))
        view.type("q")
        assert view.end() == 0


def test_an_error_leaves_the_screen(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "名前", "SUCCESS")
    jobrota.AutosysUpdater(ledger, lambda *row: False).run()
    with terminal(80, 24, *COMMAND, "--ledger", ledger.root, env={"PYTHONIOENCODING": "ascii"}) as view:
        has("1 pending", view)
        view.type("q")
        assert view.end() == 0
        ended_well(view)
    strict = "from jobrota import cli; cli.prepare_streams = lambda: None; cli.main()"
    command = (sys.executable, "-c", strict, "top", "--ledger", ledger.root)
    with terminal(80, 24, *command, env={"PYTHONIOENCODING": "ascii"}) as view:
        assert view.end() == 1
        ended_well(view)
        assert "UnicodeEncodeError" in view.output.split(LEAVE)[-1]


def test_what_cannot_be_shown_is_one_line(
    ledger: jobrota.JobLedger, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(80, 24, *COMMAND, "--ledger", str(tmp_path / "none")) as view:
        assert view.end() == 1
        assert view.output.startswith("jobrota: ")
        assert ENTER not in view.output
    with terminal(80, 24, *COMMAND, "--ledger", ledger.root, env={"TERM": "dumb"}) as view:
        assert view.end() == 2
        assert "jobrota autosys status --json" in " ".join(view.output.split())
    for wrong in (("--every", "1ms"), ("--every", "2d"), ("--recent", "0s"), ("--recent", "366d")):
        assert run("top", *wrong, "--ledger", ledger.root) == 2
        assert f"{wrong[1]} is not a duration from" in capsys.readouterr().err
    assert run("top", "--ledger", ledger.root) == 2
    assert "top needs a terminal" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert run("top", "--ledger", ledger.root) == 2
    assert "pip install 'rich" in capsys.readouterr().err
