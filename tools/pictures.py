"""Makes the pictures of the README anew: `make pictures` runs it with the folder of the pictures.

Each picture is of a real run, so its figures differ a little each time. The folder `tests` must be on PYTHONPATH,
because the browser is that of the tests.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jobrota
import report_page


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


PICTURES: dict[str, Callable[[Path], None]] = {"report.png": report}


def main() -> None:
    """Makes all pictures in the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PICTURES.items():
        make(folder / name)
        print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
