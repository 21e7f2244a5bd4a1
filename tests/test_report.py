"""The report in a real browser: what it shows, that it asks nothing of a network, and that everybody can read it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
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


def made(rows: list[dict[str, Any]]) -> jobrota.ComparisonResult:
    """A result of a few jobs that a test makes up; what a job does not say, it has like the others."""
    rows = [{"round": 1, "context": "c", "queue": "q", "host": "node-1", "state": "completed"} | row for row in rows]
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        text = any(isinstance(value, str) for value in values)
        kind = DataType.int64() if name == "round" else DataType.utf8() if text else DataType.float64()
        columns[name] = Array(values, kind)
    return jobrota.ComparisonResult.from_table(Table.from_pydict(columns))


def job(arm: str, name: str, start: float, starting: float, running: float, **more: Any) -> dict[str, Any]:
    """A job that was submitted at 0, with the orchestrator's account of it."""
    end = start + starting + running
    known = {"wlo_submit_s": 0.0, "wlo_start_s": start, "wlo_end_s": end, "pending_s": start}
    known |= {"starting_s": starting, "running_s": running, "jes_created_s": 0.0, "jes_end_s": end}
    return {"arm": arm, "job": name} | known | more


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


def test_links_within_a_notebooks_frame_stay_there_and_the_frame_fits(browser: Any, tmp_path: Path) -> None:
    from jobrota import report

    view = report.show(jobrota.ComparisonResult.from_table(recorded()), height=500)
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html><p>A notebook</p>{view._repr_html_()}")
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    asked: list[str] = []
    page.goto((tmp_path / "notebook.html").as_uri())
    frame = page.frames[1]
    frame.wait_for_selector("html[data-drawn]", timeout=60_000)
    page.on("request", lambda request: asked.append(request.url))
    frame.click('nav a[href="#jobs"]')
    page.wait_for_timeout(300)
    assert (asked, frame.url, frame.evaluate("document.activeElement.id")) == ([], "about:srcdoc", "jobs")
    height = "document.querySelector('iframe').clientHeight"
    high = page.evaluate(height)
    assert high >= frame.evaluate("document.documentElement.scrollHeight") > 3000
    frame.click("summary >> nth=3")
    page.wait_for_function(f"high => {height} > high", arg=high)
    context.close()


def test_the_module_is_there_without_importing_it() -> None:
    code = (
        "import sys, jobrota; assert 'jobrota.report' not in sys.modules; jobrota.report.show\n"
        "try: jobrota.nothing\nexcept AttributeError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no attribute 'nothing'" in run.stdout
    assert "jobrota.report.show(result)" in jobrota.ComparisonResult.from_table(recorded())._repr_html_()


def test_where_a_report_cannot_go_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    from jobrota import report

    result = jobrota.ComparisonResult.from_table(recorded())
    assert report.write(result, tmp_path / "new" / "folder" / "x.html").exists()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["x.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(jobrota.StorageError, match="name another file"):
        report.write(result, tmp_path / "file" / "x.html")
    with pytest.raises(jobrota.StorageError, match="name another file"):
        report.write(result, tmp_path)
    with pytest.raises(jobrota.StorageError, match="name another folder"):
        report.write(result, tmp_path / "x.html", images=tmp_path / "file", formats="svg")
    saved = Path(result.save(tmp_path / "run.html"))
    before = saved.read_bytes()
    for target in (None, saved, tmp_path / "new" / ".." / "run.html"):
        with pytest.raises(jobrota.InvalidInputError, match="the result itself"):
            report.write(saved, target)
    assert saved.read_bytes() == before
    for formats in ("gif", ["png", "gif"], []):
        with pytest.raises(jobrota.InvalidInputError, match="formats are png and svg"):
            report.write(result, tmp_path / "never.html", images=tmp_path / "images", formats=formats)
    assert not (tmp_path / "never.html").exists()
    report.write(result, tmp_path / "one.html", images=tmp_path / "images", formats="svg")
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".svg"}


def test_without_the_extra_it_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobrota import report

    monkeypatch.setitem(sys.modules, "altair", None)
    result = jobrota.ComparisonResult.from_table(recorded())
    for call in (lambda: report.show(result), lambda: report.write(result, tmp_path / "x.html")):
        with pytest.raises(ImportError, match=r"pip install 'jobrota\[report\]'"):
            call()
    # No server, no jobs: nobody has asked for them yet.
    with pytest.raises(SystemExit):
        cli.main(["compare", "--base-url", "https://127.0.0.1:9", "--jobs", str(tmp_path / "none.json"), "--report"])
    assert "pip install 'jobrota[report]'" in capsys.readouterr().err


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


def test_parts_without_length_failures_and_jobs_without_an_end_are_seen(browser: Any, tmp_path: Path) -> None:
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


def test_ratios_are_ticks_of_the_texts_colour_on_a_tight_axis(browser: Any, tmp_path: Path) -> None:
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


def made_rounds(rounds: int) -> jobrota.ComparisonResult:
    return jobrota.ComparisonResult.from_table(recorded(rounds=rounds))


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
def test_colours_stand_out_from_the_ground_and_from_each_other(dark: bool, ground: str) -> None:
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


def test_rows_are_found_counted_and_gone_on_with(browser: Any, tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded(repeat_jobs=2))
    with Opened(browser, Path(result.report(tmp_path / "search.html"))) as opened:
        page = opened.page
        assert page.inner_text("#shown") == "200 of 324 shown"
        page.click("#more")
        assert page.evaluate("document.activeElement === document.querySelector('#table tbody').rows[200]")
        assert page.inner_text("#shown") == ""
        number = page.evaluate(
            "JSON.parse(document.getElementById('data').textContent).rows.flat().find(x => x > 10000)"
        )
        for text in (f"{number:,}", str(number)):
            page.fill("#search", text)
            page.wait_for_function("/^[1-9]\\d? of /.test(document.getElementById('found').textContent)")
            page.fill("#search", "")
            page.wait_for_function("!document.getElementById('found').textContent.includes(' of ')")
        page.fill("#search", "no such job")
        page.wait_for_function("document.getElementById('found').textContent.startsWith('0 ')")
        assert page.inner_text("#table tbody") == "No job has all of these words."
        heads = [text.lower() for text in page.locator("#table th button").all_inner_texts()]
        assert heads[-2:] == ["queue", "context"]
        assert page.evaluate("document.querySelector('#table th button').getBoundingClientRect().height") >= 24


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


def test_very_many_jobs_are_a_band_and_repeated_names_are_told_apart() -> None:
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
