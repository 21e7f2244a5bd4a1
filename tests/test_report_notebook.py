"""A report in a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jobrota
from reported_runs import EVIL, recorded


def test_a_notebook_shows_the_same_page_in_a_frame() -> None:
    from jobrota import report

    view = report.show(jobrota.ComparisonResult.from_table(recorded(rename=EVIL)).to_dict())
    html = view._repr_html_()
    assert html.startswith("<iframe ")
    assert "<script" not in html
    assert "srcdoc=" in html
    assert 'sandbox="allow-scripts' in html
    json.dumps(html)


def test_notebook_frame_keeps_links_and_fits(browser: Any, tmp_path: Path) -> None:
    from jobrota import report

    view = report.show(jobrota.ComparisonResult.from_table(recorded()), height=500)
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html><p>A notebook</p>{view._repr_html_()}")
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    context.set_default_timeout(90_000)
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


def test_a_script_that_comes_with_the_data_does_not_run(browser: Any, report: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    script = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title='evil'\">"
    changed.write_text(report.read_text().replace("</body>", f"{script}</body>"))
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(changed.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    assert page.title() != "evil"
    context.close()


def test_the_module_is_there_without_importing_it() -> None:
    code = (
        "import sys, jobrota; assert 'jobrota.report' not in sys.modules; jobrota.report.show\n"
        "try: jobrota.nothing\nexcept AttributeError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no attribute 'nothing'" in run.stdout
    assert "jobrota.report.show(result)" in jobrota.ComparisonResult.from_table(recorded())._repr_html_()
