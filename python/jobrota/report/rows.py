"""The input of a report, from the JSON of a result: arms in their order, and flat rows of jobs."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrota.errors import InvalidInputError

if TYPE_CHECKING:
    from jobrota._native import ComparisonResult

__all__ = ["DIFFERENCES", "Comparison", "Interval", "ended_well", "intervals", "read"]

DIFFERENCES = {
    "parallelism": "parallelism alone",
    "context": "context alone",
    "total": "both together",
    "mixed": "both, not separated",
    "same": "nothing known",
}
"""What two arms differ in, by the kind of their comparison."""

Row = dict[str, Any]


@dataclass
class Comparison:
    """A result in the form that the page and the charts use."""

    title: str
    path: Path | None
    metadata: Mapping[str, Any]
    arms: list[Mapping[str, Any]]
    analysis: Mapping[str, Any]
    warnings: list[Mapping[str, str]]
    rows: list[Row] = field(default_factory=list)
    zeros: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """The first submission of each arm and round, in seconds of the run."""
    length: float = 0.0
    """The length of the longest round in seconds, for the shared axis of timelines."""

    @property
    def names(self) -> list[str]:
        """The names of the arms in their order."""
        return [str(arm["name"]) for arm in self.arms]

    @property
    def rounds(self) -> list[int]:
        """The numbers of all rounds."""
        return sorted({row["round"] for row in self.rows})

    @property
    def shown_round(self) -> int:
        """The round that charts show first: the first round that most arms completed."""
        complete = Counter(
            entry["round"] for arm in self.arms for entry in arm["rounds"] if not entry.get("interrupted")
        )  # fmt: skip
        return max(self.rounds, key=lambda number: (complete[number], -number))

    @property
    def orchestrated(self) -> bool:
        """Whether the orchestrator had an entry for any job."""
        return any(row["_started"] is not None for row in self.rows)

    def of_round(self, arm: str, number: int) -> list[Row]:
        """The jobs of one round of an arm."""
        return [row for row in self.rows if row["arm"] == arm and row["round"] == number]

    def figures(self, arm: str) -> Mapping[str, Any]:
        """The analysis of an arm."""
        return next(figures for figures in self.analysis["arms"] if figures["arm"] == arm)


@dataclass
class Interval:
    """A phase of a job, in seconds since the first submission of its arm and round."""

    row: Row
    phase: str
    start: float
    end: float


def read(result: ComparisonResult | Mapping[str, Any] | str | os.PathLike[str], title: str | None = None) -> Comparison:
    """Reads a result in any form.

    Args:
        result: A `ComparisonResult`, its `to_dict()`, or the path of a result JSON.
        title: The title of the page.

    Raises:
        InvalidInputError: It has no jobs.
    """
    path: Path | None = None
    if isinstance(result, str | os.PathLike):
        from jobrota._native import ComparisonResult as Result

        path = Path(result)
        document: Mapping[str, Any] = Result.load(path).to_dict()
    elif isinstance(result, Mapping):
        document = result
    else:
        path, document = result.path, result.to_dict()
    arms, analysis = document.get("arms"), document.get("analysis")
    if not isinstance(arms, list) or not isinstance(analysis, Mapping):
        raise InvalidInputError(
            "this is not the result of a comparison: it has neither arms nor an analysis; "
            "read it with ComparisonResult.load, which accepts older results, too"
        )
    rows = [_row(dict(job)) for arm in arms for job in arm["jobs"]]
    if not rows:
        raise InvalidInputError("the result has no jobs, so there is nothing to show")
    zeros = _rebase(rows)
    when = (document.get("metadata") or {}).get("execution_timestamp")
    comparison = Comparison(
        title=title or ("SAS Viya comparison" + (f" of {str(when)[:16].replace('T', ' ')} UTC" if when else "")),
        path=path,
        metadata=document.get("metadata") or {},
        arms=arms,
        analysis=analysis,
        warnings=list(document.get("warnings") or ()),
        rows=rows,
        zeros=zeros,
    )
    for arm, number in zeros:
        ends = [part.end for part in intervals(comparison.of_round(arm, number))]
        comparison.length = max(comparison.length, *ends, 0.0)
    return comparison


def ended_well(row: Row) -> bool:
    """Whether a job completed."""
    return bool(row["state"] == "completed")


def _row(row: Row) -> Row:
    row["round"] = int(row.get("round") or 1)
    return row


def _rebase(rows: Iterable[Row]) -> dict[tuple[str, int], float]:
    """Adds times since the first submission of the row's arm and round. Returns these first submissions."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["arm"], row["round"]].append(row)
    zeros: dict[tuple[str, int], float] = {}
    for place, group in groups.items():
        moments = [
            row[name] for row in group for name in ("jes_created_s", "wlo_submit_s") if row.get(name) is not None
        ]
        zero = zeros[place] = min(moments, default=0.0)
        for row in group:
            submitted = row["wlo_submit_s"] if row.get("wlo_submit_s") is not None else row.get("jes_created_s")
            started = row.get("wlo_start_s")
            end = row["wlo_end_s"] if row.get("wlo_end_s") is not None else row.get("jes_end_s")
            row["_submitted"] = None if submitted is None else max(submitted - zero, 0.0)
            row["_started"] = None if started is None else max(started - zero, 0.0)
            row["_end"] = None if end is None else end - zero
            starting = row.get("starting_s")
            running = None if started is None or starting is None else started - zero + starting
            row["_running"] = running if running is None or row["_end"] is None else min(running, row["_end"])
    return zeros


def intervals(rows: Iterable[Row]) -> list[Interval]:
    """Returns the known phases of the jobs of one round. The unknown time of a job is one interval.

    A job that started and has no known end lasts until the round's end.
    """
    rows = list(rows)
    moments = ("_submitted", "_started", "_running", "_end")
    last = max((row[name] for row in rows for name in moments if row[name] is not None), default=0.0)
    found = []
    for row in rows:
        submitted, started, running, end = (row[name] for name in moments)
        if started is None:
            if submitted is not None and end is not None:
                found.append(Interval(row, "not known", submitted, max(end, submitted)))
            continue
        if submitted is not None and started > submitted:
            found.append(Interval(row, "pending", submitted, started))
        if running is not None and running > started:
            found.append(Interval(row, "starting", started, running))
        begin = running if running is not None else started
        phase, until = ("not known", last) if end is None else ("running", end)
        found.append(Interval(row, phase, begin, max(until, begin)))
    return found
