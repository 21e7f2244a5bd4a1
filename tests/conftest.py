"""Fixtures of all tests: a clean environment for each, one sandbox for all, and no skipped tests in CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobrota
import report_page
import spark_session
from reported_runs import EVIL, recorded

# How the names of variables begin.
SETTINGS = ("SAS_", "DATABRICKS_")
CREDENTIALS = ("AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "IDENTITY_", "IMDS_", "MSI_")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """With CI=true, a skipped test fails, because a skip would not be noticed."""
    report = yield
    if report.skipped and os.environ.get("CI", "").lower() == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI refuses: {call.excinfo.value if call.excinfo else ''}"
    return report


def pytest_configure() -> None:
    """A suite that a shell runs in the background ignores Ctrl-C, and so would the processes that tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(jobrota_unconfigured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own working and state directory, no settings or credentials, and nothing configured."""
    for name in list(os.environ):
        if name.startswith(SETTINGS + CREDENTIALS):
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("JOBROTA_CONFIG")  # tests write a jobrota.toml into the working directory


@pytest.fixture(scope="session")
def sandbox() -> Iterator[jobrota.Sandbox]:
    """One sandbox for the tests that do not depend on what others did in it."""
    with jobrota.Sandbox(vms=4, vms_down=1, speed=400) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One real Spark with Delta Lake for all tests; its start costs seconds."""
    missing = spark_session.missing()
    if missing:
        pytest.skip(missing)
    session = spark_session.start(tmp_path_factory.mktemp("spark"), short_lived=True)
    yield session
    session.stop()


@pytest.fixture
def ledger(jobrota_ledger: jobrota.JobLedger) -> jobrota.JobLedger:
    """A ledger of the test's own, with nothing in it."""
    return jobrota_ledger


# Not for the whole session: while it is there, no test can run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser."""
    with report_page.launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the recorded run, in which one job has a name that would be markup."""
    result = jobrota.ComparisonResult.from_table(recorded(rename=EVIL))
    return Path(result.report(tmp_path_factory.mktemp("report") / "report.html"))
