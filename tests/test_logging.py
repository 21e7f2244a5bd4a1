"""Events of the core reach Python's logging with their fields, if a logger is enabled for them."""

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


def test_no_records_without_logger(caplog: pytest.LogCaptureFixture) -> None:
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
    """Many small files make maintenance overdue: said on stderr, as Python does by default."""
    code = """
import sys, jobrota

ledger = jobrota.JobLedger(sys.argv[1])
for number in range(int(sys.argv[2])):
    ledger.log_job_completion("a.sas", f"J{number}", "SUCCESS")
ledger.pending_notifications()
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "ledger"), "1100"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "maintenance is overdue" in done.stderr


def test_ctrl_c_in_handler_is_raised() -> None:
    """Python runs handlers of signals in whichever of its code comes next, which may be that of logging."""

    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    logger, handler = logging.getLogger("jobrota.selection.probe"), Interrupted()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logging.getLogger("jobrota").setLevel(logging.DEBUG)
    try:
        with pytest.raises(KeyboardInterrupt):
            selector().select()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logging.getLogger("jobrota").setLevel(logging.NOTSET)


def test_a_handler_that_fails_does_not_fail_the_call(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, logger="jobrota")
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))

    def fail(_: logging.LogRecord) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(caplog.handler, "emit", fail)
    assert selector().select().vm == "vm2"
    assert [str(error) for error in unraisable] == ["disk full", "disk full"]
