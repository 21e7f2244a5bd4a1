"""Reports are accessible: by keyboard and screen reader, in small windows, in both themes, and in print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import jobrota
from report_page import Opened
from reported_runs import CHARTS, job, made, recorded


def test_everything_is_reached_by_the_keyboard(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        page = opened.page
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    "(() => { const e = document.activeElement; return e.id || e.className || e.tagName; })()"
                )
            )
            if reached[-1] == "search":
                break
        assert reached[0] == "skip"
        assert "SUMMARY" in reached
        assert "search" in reached
        summary = page.locator("summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_an_audit_of_accessibility_finds_nothing(browser: Any, report: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with Opened(browser, report, width, scheme) as opened:
        violations = Axe().run(opened.page).response["violations"]
        assert [(found["id"], found["nodes"][0]["html"][:200]) for found in violations] == []
        # Each chart has a name, and what it shows in words.
        for key in CHARTS:
            chart = opened.page.locator(f"#{key}")
            assert chart.get_attribute("role") == "img"
            for attribute in ("aria-labelledby", "aria-describedby"):
                assert opened.page.inner_text(f"#{chart.get_attribute(attribute)}").strip()


@pytest.mark.parametrize("width", [1280, 400])
def test_long_names_fit(browser: Any, tmp_path: Path, width: int) -> None:
    arms = ["an_arm_with_a_name_that_goes_on_and_on_for_ever", "another_arm_with_a_name_that_is_as_long_as_that"]
    result = made([job(arm, f"job_{at}", at, 1, 10 + at) for arm in arms for at in range(5)])
    with Opened(browser, Path(result.report(tmp_path / "long.html")), width) as opened:
        over = """[...document.querySelectorAll('.chart')].filter(chart =>
            chart.querySelector('svg').getBoundingClientRect().width > chart.clientWidth).map(chart => chart.id)"""
        assert opened.page.evaluate(over) == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("dark", "ground"), [(False, "#ffffff"), (True, "#0d1117")])
def test_colours_have_enough_contrast(dark: bool, ground: str) -> None:
    from jobrota import display
    from jobrota.report.theme import theme

    config = theme(dark)
    inks = {param["name"]: param["value"] for param in config["params"]}
    phases = config["range"]["ordinal"]
    for colour in [*phases, *config["range"]["category"], inks["slope"], inks["failed"], "#d55e00"]:
        assert contrast(colour, ground) >= 3, colour
    assert contrast(inks["ink"], ground) >= 4.5
    pending, starting, running, _ = phases
    for one, other in ((pending, starting), (starting, running), (pending, running)):
        assert contrast(one, other) >= 1.5, (one, other)
    alarm = dict(part.split(":") for part in display._ALARM.split(";"))
    assert contrast(alarm["background"], "#ffffff" if alarm["color"] == "#fff" else alarm["color"]) >= 4.5


def test_paper_has_all_rows_on_white(browser: Any, tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded(repeat_jobs=2))
    with Opened(browser, Path(result.report(tmp_path / "print.html")), scheme="dark") as opened:
        page = opened.page
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#table tbody tr").count() == 324
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        fills = "[...new Set([...document.querySelectorAll('.chart svg text')].map(e => getComputedStyle(e).fill))]"
        assert page.evaluate(fills) == ["rgb(31, 35, 40)"]
        page.set_viewport_size({"width": 700, "height": 900})
        wide = "[...document.querySelectorAll('svg, canvas')].every(e => e.getBoundingClientRect().width <= 700)"
        assert page.evaluate(wide)
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("#table tbody tr").count() == 200
