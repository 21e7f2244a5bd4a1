"""docs/troubleshooting.md says of each class what it means, whether a retry helps, and what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jobrota
from jobrota import errors
from jobrota.autosys import SendEvent
from jobrota.viya import ViyaSession
from support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CLASSES = [name for name in errors.__all__ if name != "JobrotaError"]


def retry(name: str) -> str:
    """What the page says about a retry."""
    found = re.search(r"^\*\*Retry:\*\* (.+)", SECTIONS[name], re.MULTILINE)
    return found[1] if found else ""


def test_each_class_has_its_section() -> None:
    assert sorted(SECTIONS) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_section_has_everything(name: str) -> None:
    text = SECTIONS[name]
    bases = {base.__name__ for base in getattr(errors, name).__bases__} - {"JobrotaError"}
    named = re.match(r"Also an? (.*?)\.", text)
    assert set(re.findall(r"`(\w+)`", named[1] if named else "")) == bases
    meaning = re.sub(r"^Also an? .*?\. ", "", text).partition("\n\n")[0]
    assert len(meaning) > 20
    assert re.match(r"(yes|no|mostly (yes|no)|does not apply)\b", retry(name))
    assert re.search(r"^\*\*What to do:\*\* .{20}", text, re.MULTILINE)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which no program listens, and none can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_what_the_page_says_about_retries_is_true(tmp_path: Path, closed_port: int, sandbox: jobrota.Sandbox) -> None:
    empty, ledger = jobrota.JobLedger(tmp_path / "empty"), jobrota.JobLedger(tmp_path / "ledger")
    ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
    updater = jobrota.AutosysUpdater(ledger, SendEvent(tmp_path / "no-such-program"))
    selector = jobrota.RoundRobinSelector(["127.0.0.1"], cursor="process", probe=f"tcp:{closed_port}")
    server = f"http://127.0.0.1:{closed_port}"
    calls: dict[str, Callable[[], object]] = {
        "InvalidInputError": lambda: jobrota.JobLedger(""),
        "NotFoundError": empty.pending_executions,
        "UnsupportedError": lambda: jobrota.JobLedger("/dbfs/ledger"),
        "NoReachableVmError": selector.select,
        "NetworkError": lambda: ViyaSession(server, tokens=lambda: "token").contexts(["c"]),
        "AuthenticationError": lambda: ViyaSession(sandbox.viya_url, tokens=lambda: "wrong").contexts(["c"]),
        "DeliveryError": updater.run,
    }
    for name, call in calls.items():
        with pytest.raises(errors.JobrotaError) as caught:
            call()
        assert type(caught.value).__name__ == name
        assert caught.value.retryable == retry(name).removeprefix("mostly ").startswith("yes"), name
