"""Runs for the tests of reports."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType, Table

import jobrota

ROOT = Path(__file__).parents[1]
EVIL = "</script><img src=x onerror=\"document.title='evil'\"><b>"
CHARTS = ["ratios", "timeline-0", "timeline-1", "timeline-2", "concurrency", "hosts", "phases", "slopes"]


def recorded(rounds: int = 1, rename: str | None = None, repeat_jobs: int = 1) -> Table:
    """The recorded run; more rounds of it are a little longer each, and one job may have another name."""
    with (ROOT / "examples" / "data" / "viya_recorded_run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {"arm", "job", "context", "queue", "host", "state"}
    columns: dict[str, list[Any]] = {name: [] for name in [*rows[0], "round"]}
    moments = {"jes_created_s", "jes_end_s", "wlo_submit_s", "wlo_start_s", "wlo_end_s"}
    for number in range(rounds):
        for copy in range(repeat_jobs):
            for row in rows:
                stretch = 1 + 0.01 * number * (row["arm"] != "sequential")
                for name, value in row.items():
                    if name in texts:
                        columns[name].append(f"{value}{copy or ''}" if name == "job" else value)
                    else:
                        columns[name].append(
                            float(value) * (stretch if name in moments else 1) + 5000 * number * (name in moments)
                        )
                columns["round"].append(number + 1)
    if rename:
        columns["job"][0] = rename
    made: dict[str, Any] = {
        name: Array(values, DataType.utf8() if name in texts else DataType.float64())
        for name, values in columns.items()
    }
    made["round"] = Array(columns["round"], DataType.int64())
    return Table.from_pydict(made)


def made_rounds(rounds: int) -> jobrota.ComparisonResult:
    return jobrota.ComparisonResult.from_table(recorded(rounds=rounds))


def made(rows: list[dict[str, Any]]) -> jobrota.ComparisonResult:
    """A result of a few jobs that a test makes up; what a job does not say, it has like the others."""
    rows = [{"round": 1, "context": "c", "queue": "q", "host": "node-1", "state": "completed"} | row for row in rows]
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        text = any(isinstance(value, str) for value in values)
        kind = DataType.int64() if name == "round" else DataType.utf8() if text else DataType.float64()
        columns[name] = Array(values, kind)
    return jobrota.ComparisonResult.from_table(Table.from_pydict(columns))


def job(arm: str, name: str, start: float, starting: float, running: float, **more: Any) -> dict[str, Any]:
    """A job that was submitted at 0, with the orchestrator's account of it."""
    end = start + starting + running
    known = {"wlo_submit_s": 0.0, "wlo_start_s": start, "wlo_end_s": end, "pending_s": start}
    known |= {"starting_s": starting, "running_s": running, "jes_created_s": 0.0, "jes_end_s": end}
    return {"arm": arm, "job": name} | known | more
