"""What a report shows, in a real browser, without a network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import jobrota
from report_page import Opened
from reported_runs import CHARTS, job, made, made_rounds, recorded
from support import column


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_charts_are_drawn_offline_at_any_width(browser: Any, report: Path, width: int, scheme: str) -> None:
    with Opened(browser, report, width, scheme) as opened:
        assert [line for line in opened.said if not line.startswith(("log:", "info:"))] == []
        assert opened.asked == [report.as_uri()]
        marks = opened.marks()
        assert list(marks) == CHARTS
        assert all(count > 0 for count in marks.values()), marks
        # No wider than the window: nothing has to be scrolled sideways but tables in their boxes.
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.title() == "SAS Viya comparison"


def test_the_timeline_has_every_job_with_its_phases(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        script = "key => document.querySelectorAll(`#${key} .mark-rect.role-mark path`).length"
        counts = [opened.page.evaluate(script, f"timeline-{arm}") for arm in range(3)]
        jobs = jobrota.ComparisonResult.from_table(recorded()).jobs()
        waited = Counter(
            arm
            for arm, submitted, started in zip(
                *(column(jobs, name) for name in ("arm", "wlo_submit_s", "wlo_start_s")), strict=True
            )
            if started > submitted
        )
        # Every job starts and runs, and those that waited have a third part.
        assert counts == [108 + waited[arm] for arm in ("sequential", "async_regular", "async_autoscaling")]


def test_the_verdict_comes_first_and_warnings_are_there(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        text = opened.page.inner_text("body")
        assert text.index("No verdict: 1 round") < text.index("Charts")
        for code in ("single_repeat", "shared_host", "warm_host", "fixed_arm_scaled", "packed_host"):
            assert code in opened.page.inner_text("#warnings")


def test_an_interval_is_what_the_verdict_begins_with(browser: Any, tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded(rounds=6))
    with Opened(browser, Path(result.report(tmp_path / "rounds.html"))) as opened:
        assert opened.page.inner_text("#verdict")[0].isdigit()
        assert "98 % interval, 6 rounds" in opened.page.inner_text("#verdict")
        assert opened.marks()["rounds"] > 0


def test_every_round_can_be_looked_at(browser: Any, tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded(rounds=3))
    with Opened(browser, Path(result.report(tmp_path / "rounds.html"))) as opened:
        page = opened.page
        lengths = """() => [...document.querySelectorAll('#timeline-1 .mark-rect.role-mark path')].length"""
        finding = "#finding-timeline-1"
        first, count = page.inner_text(finding), page.evaluate(lengths)
        assert count > 108
        page.select_option("#round", "3")
        # Its jobs took a little longer, and the picture has no bars of another round.
        page.wait_for_function(
            "first => document.querySelector('#finding-timeline-1').textContent !== first", arg=first
        )
        page.wait_for_function(
            "count => document.querySelectorAll('#timeline-1 .mark-rect.role-mark path').length === count", arg=count
        )
        assert page.inner_text(finding) != first
        assert all(marks > 0 for marks in opened.marks().values()), opened.marks()
        # What is chosen stays when the window becomes another one.
        page.set_viewport_size({"width": 700, "height": 900})
        page.wait_for_timeout(400)
        values = page.evaluate("document.getElementById('round').value")
        assert (values, [line for line in opened.said if line.startswith("error")]) == ("3", [])


def test_zero_length_and_unfinished_jobs_are_visible(browser: Any, tmp_path: Path) -> None:
    result = made(
        [
            job("one", "short", 0, 0, 0),
            job("one", "failed", 1, 2, 3, state="failed"),
            job("one", "lost", 2, 1, 0, wlo_end_s=None, jes_end_s=None, running_s=None, state="failed"),
            job("one", "long", 0, 1, 1000),
            job("two", "long", 0, 1, 100),
        ]
    )
    with Opened(browser, Path(result.report(tmp_path / "few.html"))) as opened:
        page = opened.page
        boxes = """() => [...document.querySelectorAll('#timeline-0 .mark-rect.role-mark path')].map(path =>
            [path.getBoundingClientRect().width + parseFloat(getComputedStyle(path).strokeWidth),
             path.getAttribute('stroke'), path.__data__.datum])"""
        bars = page.evaluate(boxes)
        # A box does not count its edge, and the edge is all that a part without length has.
        assert all(width >= 1 and stroke not in (None, "none") for width, stroke, _ in bars)
        assert {datum["job"] for _, stroke, datum in bars if stroke == "#b3261e"} == {"failed", "lost"}
        assert "2 did not end well" in page.inner_text("#finding-timeline-0")
        lost = [datum for _, _, datum in bars if (datum["job"], datum["phase"]) == ("lost", "not known")]
        assert [datum["end"] for datum in lost] == [1001]
        assert "✕ failed" in page.locator("#timeline-0 svg").text_content()
        # A tap says what the mark's tooltip says.
        page.locator("#timeline-0 .mark-rect.role-mark path").last.click()
        page.wait_for_function("document.querySelector('#picked-timeline-0').textContent.includes('job: ')")
        assert opened.said == []


def test_without_the_orchestrator_charts_say_so(browser: Any, tmp_path: Path) -> None:
    rows = [
        {"arm": arm, "job": f"j{at}", "jes_created_s": 0.0, "jes_end_s": 5.0 + at, "host": None, "round": number}
        for arm in ("one", "two")
        for number in (1, 2)
        for at in range(3)
    ]
    with Opened(browser, Path(made(rows).report(tmp_path / "none.html"))) as opened:
        page = opened.page
        for key in ("concurrency", "hosts", "phases", "slopes"):
            assert "Not known: the orchestrator had no entry" in page.inner_text(f"#figure-{key}")
        labels = page.locator("#timeline-0 .role-legend-label text").all_text_contents()
        assert labels == ["not known"]
        assert page.locator(".facts tr", has_text="cold starts").inner_text().count("not known") == 2
        assert opened.said == []


def test_ratios_are_ticks_on_tight_axis(browser: Any, tmp_path: Path) -> None:
    from jobrota.report import charts
    from jobrota.report.rows import read

    result = jobrota.ComparisonResult.from_table(recorded(rounds=6))
    spec = next(chart.spec for chart in charts.draw(read(result)) if chart.key == "ratios")
    assert spec is not None
    axes = [layer["encoding"]["x"] for layer in spec["layer"]]
    assert {axis["title"] for axis in axes} == {"times the baseline's makespan (log)"}
    low = min(row["low"] for row in spec["datasets"]["rows"])
    assert axes[0]["scale"] == {"type": "log", "nice": False, "domain": [round(low / 1.15, 4), 1.15]}
    few = next(chart.spec for chart in charts.draw(read(made_rounds(2))) if chart.key == "ratios")
    assert few is not None
    assert [layer["mark"]["type"] for layer in few["layer"]] == ["rule", "point"]
    for scheme, colour in (("light", "#24292f"), ("dark", "#e6edf3")):
        with Opened(browser, Path(result.report(tmp_path / "rounds.html")), scheme=scheme) as opened:
            fills = "[...document.querySelectorAll('#ratios .mark-symbol path')].map(e => e.getAttribute('fill'))"
            assert set(opened.page.evaluate(fills)) == {colour}
            assert opened.page.inner_text(".percent").startswith("32.5 % less time, ")
            assert opened.page.locator('#verdict a[href="#warnings"]').count() == 2


def test_timelines_share_their_axis_and_count_within_their_round() -> None:
    from jobrota.report import charts
    from jobrota.report.rows import read

    drawn = {chart.key: chart for chart in charts.draw(read(made_rounds(3)))}
    domains = []
    for key in CHARTS[1:4]:
        spec = drawn[key].spec
        assert spec is not None
        domains.append(spec["spec"]["encoding"]["x"]["scale"]["domain"])
    assert domains[0] == domains[1] == domains[2]
    findings = drawn["timeline-2"].findings
    assert "new: node-3" in findings[1]
    assert "new" not in findings[2]
    assert all("in any round" not in finding for finding in findings.values())


def test_many_jobs_are_drawn_as_band() -> None:
    from jobrota.report import charts
    from jobrota.report.rows import read

    many = [job(arm, f"job {at}", 0, 1, at + slow) for arm, slow in (("a", 1), ("b", 5)) for at in range(200)]
    slopes = next(chart for chart in charts.draw(read(made(many))) if chart.key == "slopes")
    assert slopes.spec is not None
    assert {name: len(rows) for name, rows in slopes.spec["datasets"].items()} == {"rows": 20, "middle": 2, "band": 2}
    assert (len(slopes.rows), slopes.marks) == (200, 34)
    same = [job(arm, "same", 0, 1, at + 1) for arm in ("a", "b") for at in range(3)]
    slopes = next(chart for chart in charts.draw(read(made(same))) if chart.key == "slopes")
    assert len(slopes.rows) == 3


def test_a_chart_that_cannot_be_drawn_leaves_the_others(browser: Any, report: Path, tmp_path: Path) -> None:
    text = report.read_text().replace('"renderer":"svg"', '"renderer":"no such"', 1)
    (tmp_path / "broken.html").write_text(text)
    with Opened(browser, tmp_path / "broken.html") as opened:
        assert "could not be drawn" in opened.page.inner_text("#ratios")
        assert opened.marks()["slopes"] > 0
        assert opened.page.inner_text("h1") == "SAS Viya comparison"
    assert "<h1>SAS Viya comparison</h1>" in text
    assert "<noscript>" in text
