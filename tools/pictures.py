"""Makes the pictures of the README anew: `make pictures` runs it with the folder of the pictures.

Each picture is of a real run, so its figures differ a little each time. The folder `tests` must be on PYTHONPATH,
because the browser is that of the tests.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

import jobrota
import report_page
from jobrota.commands.top_live import Source
from jobrota.commands.top_view import view

_STATUSES = ["SUCCESS", "SUCCESS", "SUCCESS", "FAILURE", "SUCCESS"]


def report(picture: Path) -> None:
    """Compares three arms in the sandbox, and takes the picture of the report."""
    with tempfile.TemporaryDirectory() as folder, jobrota.Sandbox(speed=400) as sandbox:
        runner = jobrota.ViyaComparisonRunner(
            sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, results_dir=folder,
            arms="three_way", mode="all", repeat=5,
        )  # fmt: skip
        page = Path(runner.run().report())
        with report_page.launched() as browser, report_page.Opened(browser, page, 1100) as opened:
            opened.page.set_viewport_size({"width": 1100, "height": 1050})
            # The long table is left out, so that the charts are in the picture.
            opened.page.locator(".facts").first.evaluate("table => table.remove()")
            opened.page.screenshot(path=picture)


def top(picture: Path) -> None:
    """Takes the picture of what `jobrota top` shows while a cycle delivers to the sandbox."""
    with tempfile.TemporaryDirectory() as folder, jobrota.Sandbox(viya=False) as sandbox:
        ledger = jobrota.JobLedger(f"{folder}/ledger")
        selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor=folder, probe=sandbox.probe, rise=2, fall=2)
        for _ in range(12):
            selector.select()
        for number in range(6):
            ledger.log_job_completion(f"night/{number}.sas", f"PROD.CM.{number:03}", "SUCCESS")
        ledger.log_job_completion("night/none.sas", "PROD.NO EVENT", "SUCCESS")
        jobrota.AutosysUpdater(ledger, lambda file, job, status: True).run()
        for number, status in enumerate(_STATUSES):
            ledger.log_job_completion(f"day/{number}.sas", f"PROD.AE.{number:03}", status)
        console = Console(record=True, width=118, file=io.StringIO())

        def send(file: str, job: str, status: str) -> bool:
            if job == "PROD.AE.001":
                console.print(view(asyncio.run(Source(ledger, selector, 3600).read()), 30))
            return job != "PROD.AE.000"

        jobrota.AutosysUpdater(ledger, send, concurrency=1, order="none").run()
        page = Path(folder, "top.html")
        drawn = "<!doctype html><meta charset='utf-8'><html data-drawn><body style='margin: 0'>"
        page.write_text(drawn + console.export_svg(title="jobrota top"), encoding="utf-8")
        with report_page.launched() as browser, report_page.Opened(browser, page, 1100) as opened:
            opened.page.locator("svg").screenshot(path=picture)


PICTURES: dict[str, Callable[[Path], None]] = {"report.png": report, "top.png": top}


def main() -> None:
    """Makes all pictures in the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PICTURES.items():
        make(folder / name)
        print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
