"""The report in a real browser: what it shows, that it asks nothing of a network, and that everybody can read it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table

import jobrota
from jobrota import cli
from support import column

ROOT = Path(__file__).parents[1]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
EVIL = "</script><img src=x onerror=\"document.title='evil'\"><b>"
CHARTS = ["ratios", "timeline-0", "timeline-1", "timeline-2", "concurrency", "hosts", "phases", "slopes"]


def recorded(rounds: int = 1, rename: str | None = None, repeat_jobs: int = 1) -> Table:
    """The recorded run; more rounds of it are a little longer each, and one job may have another name."""
    with (ROOT / "examples" / "data" / "viya_recorded_run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {"arm", "job", "context", "queue", "host", "state"}
    columns: dict[str, list[Any]] = {name: [] for name in [*rows[0], "round"]}
    moments = {"jes_created_s", "jes_end_s", "wlo_submit_s", "wlo_start_s", "wlo_end_s"}
    for number in range(rounds):
        for copy in range(repeat_jobs):
            for row in rows:
                stretch = 1 + 0.01 * number * (row["arm"] != "sequential")
                for name, value in row.items():
                    if name in texts:
                        columns[name].append(f"{value}{copy or ''}" if name == "job" else value)
                    else:
                        columns[name].append(
                            float(value) * (stretch if name in moments else 1) + 5000 * number * (name in moments)
                        )
                columns["round"].append(number + 1)
    if rename:
        columns["job"][0] = rename
    made: dict[str, Any] = {
        name: Array(values, DataType.utf8() if name in texts else DataType.float64())
        for name, values in columns.items()
    }
    made["round"] = Array(columns["round"], DataType.int64())
    return Table.from_pydict(made)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("the tests of reports need Chromium: install the package chromium")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    result = jobrota.ComparisonResult.from_table(recorded(rename=EVIL))
    return Path(result.report(folder / "report.html"))


class Opened:
    """A page with everything that it said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Opens it, without a network, and waits until all charts are drawn."""
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]", timeout=60_000)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def marks(self) -> dict[str, int]:
        script = """() => Object.fromEntries([...document.querySelectorAll('.chart')].map(chart => [chart.id,
            chart.querySelectorAll('[class*=mark-] > path:not(.background), [class*=mark-] line').length]))"""
        found: dict[str, int] = self.page.evaluate(script)
        return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_every_chart_is_drawn_at_any_width_in_both_themes_without_a_network(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
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
        page.wait_for_function("first => document.querySelector('#finding-timeline-1').textContent !== first", arg=first)
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


def test_the_search_finds_rows_and_says_how_many(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        page = opened.page
        assert page.inner_text("#found") == "162 jobs"
        page.fill("#search", "ae_pooled async_regular")
        page.wait_for_function("document.getElementById('found').textContent.includes(' of ')")
        rows = page.locator("#table tbody tr")
        assert rows.count() == int(page.inner_text("#found").split()[0])
        assert all("ae_pooled" in text and "async_regular" in text for text in rows.all_inner_texts())
        page.fill("#search", "no such job")
        page.wait_for_function("document.getElementById('found').textContent.startsWith('0 ')")
        page.fill("#search", "")
        page.get_by_role("button", name="running s").click()
        first = page.locator("#table tbody tr").first.inner_text()
        page.get_by_role("button", name="running s").click()
        assert page.locator("#table th[aria-sort=descending]").count() == 1
        assert page.locator("#table tbody tr").first.inner_text() != first


def test_names_of_jobs_are_never_markup(browser: Any, report: Path) -> None:
    assert "</script><img" not in report.read_text().split('id="data"')[1].split("</script>")[0]
    with Opened(browser, report) as opened:
        assert opened.page.title() == "SAS Viya comparison"
        assert opened.page.locator("img").count() == 0
        opened.page.fill("#search", "onerror")
        opened.page.wait_for_function("document.getElementById('found').textContent.startsWith('1 of')")
        assert EVIL in opened.page.inner_text("#table tbody")


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_audit_of_accessibility_finds_nothing(browser: Any, report: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with Opened(browser, report, scheme=scheme) as opened:
        violations = Axe().run(opened.page).response["violations"]
        assert [(found["id"], found["nodes"][0]["html"][:200]) for found in violations] == []
        # Each chart has a name, and what it shows in words.
        for key in CHARTS:
            chart = opened.page.locator(f"#{key}")
            assert chart.get_attribute("role") == "img"
            for attribute in ("aria-labelledby", "aria-describedby"):
                assert opened.page.inner_text(f"#{chart.get_attribute(attribute)}").strip()


def test_thousands_of_jobs_stay_usable(browser: Any, tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded(repeat_jobs=31))
    with Opened(browser, Path(result.report(tmp_path / "many.html"))) as opened:
        page = opened.page
        assert page.inner_text("#found") == f"{162 * 31:,} jobs"
        assert page.locator("#table tbody tr").count() == 200
        page.click("#more")
        assert page.locator("#table tbody tr").count() == 400
        drawn = page.evaluate("[...document.querySelectorAll('.chart')].every(c => c.querySelector('svg, canvas'))")
        assert drawn


def test_images_of_every_chart(tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded())
    result.report(tmp_path / "report.html", images=tmp_path / "images")
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == sorted(f"{chart}.{extension}" for chart in CHARTS for extension in ("png", "svg"))
    for chart in CHARTS:
        png = (tmp_path / "images" / f"{chart}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert width > 900
        assert height > 100
        assert len(png) > 10_000
        root = ElementTree.parse(tmp_path / "images" / f"{chart}.svg").getroot()
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5


def test_the_command_writes_beside_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jobrota.ComparisonResult.from_table(recorded()).save(tmp_path / "run.json")
    cli.main(["report", str(path), "--images", str(tmp_path / "images"), "--format", "svg", "--title", "A <title>"])
    assert str(tmp_path / "run.html") in capsys.readouterr().out
    page = (tmp_path / "run.html").read_text()
    assert "<title>A &lt;title&gt;</title>" in page
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".svg"}
    for arguments in (
        ["report", str(tmp_path / "none.json")],
        ["report", str(path), "--images", "x", "--format", "gif"],
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 1
        assert capsys.readouterr().err.startswith("jobrota: ")


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    from jobrota import report

    with pytest.raises(jobrota.InvalidInputError, match="neither arms nor an analysis"):
        report.write({"jobs": []}, tmp_path / "x.html")
    with pytest.raises(jobrota.InvalidInputError, match="say where the report goes"):
        report.write(jobrota.ComparisonResult.from_table(recorded()))


def test_a_notebook_shows_the_same_page_in_a_frame() -> None:
    from jobrota import report

    view = report.show(jobrota.ComparisonResult.from_table(recorded(rename=EVIL)).to_dict())
    html = view._repr_html_()
    assert html.startswith("<iframe ")
    assert "<script" not in html
    assert "srcdoc=" in html
    json.dumps(html)
