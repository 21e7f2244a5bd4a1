"""A report in a real browser."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A Chromium of the tests' own."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("the tests of reports need Chromium: install the package chromium")
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page with everything that it said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Opens it, without a network, and waits until all charts are drawn."""
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        # Other tests run beside this one, and both cores may be busy.
        self.context.set_default_timeout(90_000)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn]")

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def marks(self) -> dict[str, int]:
        script = """() => Object.fromEntries([...document.querySelectorAll('.chart')].map(chart => [chart.id,
            chart.querySelectorAll('[class*=mark-] > path:not(.background), [class*=mark-] line').length]))"""
        found: dict[str, int] = self.page.evaluate(script)
        return found
