"""Tables of the commands: whole lines for a file, lines of the terminal's width for a reader."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import pytest

from jobrota.commands.tables import print_table

LONG = "STUDY.ADVERSE EVENTS OF THE WHOLE YEAR"
DETAIL = "the server refused the event, because it is being restarted at the moment"


class Terminal(io.StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        return True


def in_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, *table: Any) -> list[str]:
    """The lines that a terminal of this width shows."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = Terminal()
    with contextlib.redirect_stdout(shown):
        print_table(*table)
    return shown.getvalue().splitlines()


def test_a_table_in_a_pipe_is_not_folded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(("job id", "detail", "n"), [(LONG, DETAIL, 1_000), ("A", None, None)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.split(r" {2,}", lines[1]) == [LONG, DETAIL, "1,000"]


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 200])
def test_a_narrow_terminal_folds_no_name(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head, *lines = in_a_terminal(columns, monkeypatch, ("job id", "detail", "n"), [(LONG, DETAIL, 1_000)])
    assert head.split() == ["job", "id", "detail", "n"]
    assert lines[0].startswith(f"{LONG} ")
    assert {"1,000", *DETAIL.split()} <= set(" ".join(lines).split())
    assert columns < 80 or max(map(len, lines)) <= columns
    assert (len(lines) == 1) == (columns == 200)


def test_the_widest_phrases_are_folded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_a_terminal(50, monkeypatch, ("error", "reason"), [("it is short", DETAIL)]) == [
        "error        reason",
        "it is short  the server refused the event, because",
        "             it is being restarted at the moment",
    ]


def test_numbers_end_and_wide_characters_begin_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        ("job", "rows", "vm"), [("日本", 1_000, "vm1"), ("e\N{COMBINING ACUTE ACCENT}", 5, "vm\n2"), ("", None, "vm3")]
    )
    assert capsys.readouterr().out.splitlines() == [
        "job    rows  vm",
        "日本  1,000  vm1",
        "e\N{COMBINING ACUTE ACCENT}         5  vm\N{REPLACEMENT CHARACTER}2",
        "          –  vm3",
    ]


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("job", "rows"), [])
    assert capsys.readouterr().out == "job  rows\n"
