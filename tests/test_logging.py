"""What the core logs arrives in Python's logging, with its fields, and only if somebody wants it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jobrota


def answers(vm: str) -> tuple[str, str]:
    if vm == "vm1":
        raise OSError("powered off")
    return "127.0.0.1", "nic"


def selector() -> jobrota.RoundRobinSelector:
    return jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=answers)


def probed(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    records = [record for record in caplog.records if record.name == "jobrota.selection.probe"]
    return [tuple(getattr(record, name) for name in ("vm", "kind", "outcome")) for record in records]


def test_each_probe_is_a_record_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="jobrota")
    selector().select()
    assert probed(caplog) == [("vm1", "callable", "down"), ("vm2", "callable", "up")]
    first = caplog.records[0]
    assert first.levelname == "DEBUG"
    assert "powered off" in first.getMessage()
    assert abs(first.created - caplog.records[-1].created) < 60


def test_nobody_who_did_not_ask_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="jobrota")
    selector().select()
    assert not probed(caplog)


def test_coroutines_and_threads_log_as_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="jobrota")
    asyncio.run(selector().select_async())
    threads = [threading.Thread(target=selector().select) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    selector().state()  # hands over what is left
    assert len(probed(caplog)) == 18


def test_warnings_reach_a_program_that_set_up_nothing(tmp_path: Path) -> None:
    """A VM in use whose table has gone cannot be given back: said on the standard error, as Python does by default."""
    code = """
import shutil, sys, jobrota

def answers(vm):
    return "127.0.0.1", "nic"

selector = jobrota.RoundRobinSelector(["vm1"], cursor=sys.argv[1], probe=answers, max_in_flight=1)
selection = selector.select()
shutil.rmtree(sys.argv[1])
open(sys.argv[1], "w").close()
del selection
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cursor")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "a VM was not given back" in done.stderr
