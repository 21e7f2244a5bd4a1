"""An object whose method is the callable of an object of ours is collected with it, but not during a call."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota import viya
from jobrota.autosys import RunCommand, Ssh

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"


class Site:
    """What a user writes: it holds objects of ours that call its methods."""

    def __init__(self, make: Callable[[Site], Any]) -> None:
        """Makes the object that calls its methods."""
        self.ours = make(self)

    def send(self, file_name: str, job_id: str, status: str) -> bool:
        return True

    def probe(self, vm: str) -> tuple[str, str]:
        return "10.0.0.1", vm

    def token(self, scope: str = "") -> str:
        return "token"

    def persist(self, tokens: dict[str, Any]) -> None:
        """Keeps nothing."""


def ledger() -> jobrota.JobLedger:
    return jobrota.JobLedger("ledger")


def selector(site: Site) -> jobrota.RoundRobinSelector:
    return jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=site.probe)


def run_command(site: Site) -> RunCommand:
    return RunCommand(selector(site), subscription_id=SUBSCRIPTION, credential=site.token)


HOLDERS: dict[str, Callable[[Site], Any]] = {
    "updater": lambda site: jobrota.AutosysUpdater(ledger(), site.send),
    "selector": selector,
    "selector with several probes": lambda site: jobrota.RoundRobinSelector(
        ["vm1"], cursor="process", probe=[site.probe, "tcp:22"]
    ),
    "ssh": lambda site: jobrota.AutosysUpdater(ledger(), Ssh(selector(site), user="u", agent="/agent")),
    "run command": lambda site: jobrota.AutosysUpdater(ledger(), run_command(site)),
    "session": lambda site: viya.ViyaSession("https://viya.example.com", tokens=site.token),
    "session with credentials": lambda site: viya.ViyaSession(
        "https://viya.example.com", tokens=viya.Credentials.tokens(site.token, site.persist)
    ),
    "runner": lambda site: jobrota.ViyaComparisonRunner("https://viya.example.com", tokens=site.token),
}


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)
def test_a_circle_through_a_callable_is_collected(make: Callable[[Site], Any]) -> None:
    site = Site(make)
    gone = weakref.ref(site)
    del site
    gc.collect()
    assert gone() is None


def test_an_object_is_not_collected_while_a_coroutine_of_it_runs() -> None:
    book = ledger()
    book.log_job_completion("a.sas", "A", "SUCCESS")

    class Slow(Site):
        def send(self, file_name: str, job_id: str, status: str) -> bool:
            gc.collect()
            return True

    async def deliver() -> int:
        # Only the coroutine still refers to the site.
        coroutine = Slow(lambda site: jobrota.AutosysUpdater(book, site.send)).ours.run_async()
        gc.collect()
        report = await coroutine
        delivered: int = report.delivered
        return delivered

    assert asyncio.run(deliver()) == 1


def test_a_selector_works_after_a_collection() -> None:
    site = Site(selector)
    gc.collect()
    assert site.ours.select().vm == "vm1"


EXIT = """
import jobrota

class Site:
    def __init__(self):
        self.log = open("log.txt", "w")
        self.updater = jobrota.AutosysUpdater(jobrota.JobLedger("ledger"), self.send)

    def send(self, file_name, job_id, status):
        return True

    def __del__(self):
        self.log.write("closed")
        self.log.close()

site = Site()
"""


def test_what_a_module_holds_is_closed_at_exit() -> None:
    subprocess.run([sys.executable, "-c", EXIT], check=True)
    assert Path("log.txt").read_text() == "closed"
