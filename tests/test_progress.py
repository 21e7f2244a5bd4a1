"""Progress: bars in a terminal that has rich, a few plain lines elsewhere."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from jobrota.progress import PlainProgress, RichProgress, make_progress


def events(arm: str, total: int) -> list[dict[str, Any]]:
    common = {"arm": arm, "total": total, "job": "ae", "state": "completed"}
    return [common | {"done": n, "failed": n // 10, "in_flight": total - n} for n in range(total + 1)]


def test_a_log_gets_a_line_per_tenth() -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        for event in events("sequential", 54) + events("async", 3):
            progress(event)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10 + 3
    assert lines[9].startswith("sequential: 54/54 jobs after ")
    assert lines[9].endswith("5 failed")


def test_a_terminal_gets_a_bar_per_arm() -> None:
    stream = io.StringIO()
    with RichProgress(Console(file=stream, force_terminal=True, width=100)) as progress:
        for event in events("sequential", 20) + events("async", 20):
            progress(event)
    assert "20/20" in stream.getvalue()


def test_without_a_terminal_it_is_plain() -> None:
    assert isinstance(make_progress(), PlainProgress)


@pytest.mark.parametrize(("spec", "kind"), [(None, PlainProgress), (object(), RichProgress)])
def test_a_notebook_without_ipywidgets_is_plain(monkeypatch: pytest.MonkeyPatch, spec: object, kind: type) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("jobrota.progress.find_spec", lambda name: spec)
    assert isinstance(make_progress(), kind)


def test_without_rich_a_terminal_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # with it, rich takes any stream for a terminal
    assert isinstance(make_progress(), RichProgress)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(make_progress(), PlainProgress)


def test_with_a_rich_that_is_too_old_a_terminal_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delattr("rich.progress.MofNCompleteColumn")
    assert isinstance(make_progress(), PlainProgress)
