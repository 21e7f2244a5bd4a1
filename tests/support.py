"""Helpers of several tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType, Table

import jobrota
from jobrota.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent


def column(table: Any, name: str) -> list[Any]:
    """The values of one column of an Arrow table."""
    values: list[Any] = table[name].to_pylist()
    return values


def rows(table: Any) -> list[tuple[Any, ...]]:
    """The rows of an Arrow table."""
    return list(zip(*(column(table, name) for name in table.column_names), strict=True))


def run(*arguments: object) -> int:
    """The exit code of the command `jobrota`, in this process."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(str(stop.code)) or -1  # on 0 the entry point returns
    return 0


def answers(vm: str) -> tuple[str, str]:
    """A probe of VMs that all answer."""
    return f"10.0.0.{vm[-1]}", f"nic-{vm}"


def runner(sandbox: jobrota.Sandbox, **options: Any) -> jobrota.ViyaComparisonRunner:
    """A runner of the sandbox's jobs."""
    given: dict[str, Any] = {"base_url": sandbox.viya_url, "tokens": sandbox.tokens, "jobs": sandbox.jobs}
    return jobrota.ViyaComparisonRunner(**(given | options))


def log_aged(ledger: jobrota.JobLedger, jobs: dict[str, timedelta]) -> None:
    """Logs a notification for each job, which is as old as it says."""
    now = datetime.now(timezone.utc)
    texts = {"file_name": [f"{job}.sas" for job in jobs], "job_id": list(jobs), "status": ["SUCCESS"] * len(jobs)}
    columns: dict[str, Any] = {name: Array(values, DataType.string()) for name, values in texts.items()}
    micros = [int((now - age).timestamp() * 1_000_000) for age in jobs.values()]
    columns["notification_timestamp"] = Array(micros, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    ledger.log_notifications(Table.from_pydict(columns))
