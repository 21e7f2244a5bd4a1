"""HTML of objects in notebooks: its content, and that values are escaped."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from typing import Any

import pytest

import jobrota
from jobrota.display import repr_html

EVIL = '<script>alert("x")</script>'
KINDS = [
    "selection",
    "selector",
    "inventory",
    "ledger",
    "ledger_summary",
    "delivery_report",
    "comparison_result",
    "updater",
    "runner",
    "sandbox",
]


class Balance(HTMLParser):
    """Checks that every tag that opens is closed, in order."""

    def __init__(self) -> None:
        """Starts with nothing open."""
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def well_formed(text: str) -> None:
    parser = Balance()
    parser.feed(text)
    parser.close()
    assert parser.open == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"name": EVIL, EVIL: 1},
        [{"vm": EVIL, "share": 0.5, "weight": None}, {"vm": "b", "selections": 3}],
        {"a": {"b": [EVIL, "c"]}, "failed": 3, "flag": True, "at": datetime(2025, 1, 1, tzinfo=timezone.utc)},
    ],
)
def test_everything_is_escaped(kind: str, data: Any) -> None:
    text = repr_html(kind, data)
    assert "<script" not in text
    well_formed(text)


def test_a_comparison_leads_with_its_verdict() -> None:
    job = {"metrics": {"orchestrator_data": {"execution_host": EVIL}}}
    data = {
        "sequential_execution": {"context_name": EVIL, "total_duration": 100.0, "jobs": [job]},
        "async_execution": {"context_name": "B", "total_duration": 40.0, "jobs": [{"metrics": None}]},
        "comparison": {"time_saved": 60.0, "efficiency_gain": 60.0},
        "path": "/x.json",
    }
    text = repr_html("comparison_result", data)
    assert "saves <b>60.0 s</b> (60.0 %" in text
    assert "<script" not in text
    well_formed(text)


def test_the_objects_show_themselves(sandbox: jobrota.Sandbox, ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion(EVIL, "A", EVIL)
    selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
    updater = jobrota.AutosysUpdater(ledger, lambda *row: False)
    runner = jobrota.ViyaComparisonRunner(sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs)
    objects: list[Any] = [
        sandbox,
        sandbox.inventory,
        selector.select(),
        selector,
        ledger,
        updater.run(),
        updater,
        ledger.summary(),
        runner,
        ledger.notifications(),
    ]
    for thing in objects:
        text = thing._repr_html_()
        assert "<script" not in text
        well_formed(text)
        assert repr(thing)
        assert "object at 0x" not in repr(thing)


def test_distribution_is_shown_as_bars() -> None:
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
    rows = [("a", 1000, 2 / 3, at), (EVIL, 499, 0.332667, at), ("rare", 1, 1 / 1500, at), ("never-yet", 0, 0.0, None)]
    text = repr_html("selector", {"cursor": "process", "vms": 4, "distribution": rows})
    well_formed(text)
    assert "<script" not in text
    assert re.findall(r"width:([0-9.]+)%", text) == ["100.0", "49.9", "0.8", "0.0"]
    assert re.findall(r">([0-9.]+ %)<", text) == ["66.7 %", "33.3 %", "0.1 %", "0.0 %"]
    assert "1,500 turns of 4 VMs" in text
    assert text.count("2026-03-04 05:06:07") == 3
    assert text.count(">never<") == 1
    # Bars are for the eye alone: the table says the same.
    assert text.count('aria-hidden="true"') == text.count('scope="row"') == 4
    # No colour that only one theme can show.
    assert re.findall(r"(?:color|background):(#[0-9a-f]{3,6}|white|black)", text) == ["#3b7ddd"] * 4


def test_a_selector_shows_its_turns(sandbox: jobrota.Sandbox) -> None:
    selector = jobrota.RoundRobinSelector(["127.0.0.1"], cursor="process", probe=lambda vm: (vm, "nic"))
    assert "0 turns of 1 VM<" in selector._repr_html_()
    selector.select()
    shown = selector._repr_html_()
    assert "1 turn of 1 VM<" in shown
    assert re.findall(r"width:([0-9.]+)%", shown) == ["100.0"]
    assert ">never<" not in shown
