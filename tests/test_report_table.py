"""The table of all jobs in a report: search, sorting, and no markup from values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jobrota
from report_page import Opened
from reported_runs import EVIL, recorded


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


def test_names_of_jobs_are_never_markup(browser: Any, report: Path) -> None:
    assert "</script><img" not in report.read_text().split('id="data"')[1].split("</script>")[0]
    with Opened(browser, report) as opened:
        assert opened.page.title() == "SAS Viya comparison"
        assert opened.page.locator("img").count() == 0
        opened.page.fill("#search", "onerror")
        opened.page.wait_for_function("document.getElementById('found').textContent.startsWith('1 of')")
        assert EVIL in opened.page.inner_text("#table tbody")


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
