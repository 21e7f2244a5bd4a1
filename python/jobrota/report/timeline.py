"""The timeline of an arm: every job on its host, coloured by phase."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import altair as alt

from jobrota.report.chart import Chart, finish, inline, of_a_round, seconds
from jobrota.report.rows import Comparison, Row, intervals

__all__ = ["timelines"]

PHASES = ("pending", "starting", "running", "not known")
LANES = 220
"""So many jobs of an arm get a line each; of more, those on a host share its lines."""


def timelines(comparison: Comparison) -> list[Callable[[Comparison], Chart | None]]:
    """What draws the timeline of each arm."""

    def maker(arm: str) -> Callable[[Comparison], Chart | None]:
        return lambda comparison: _timeline(comparison, arm)

    return [maker(arm) for arm in comparison.names]


def _timeline(comparison: Comparison, arm: str) -> Chart | None:
    rounds = {number: rows for number in comparison.rounds if (rows := comparison.of_round(arm, number))}
    # On a line that jobs share, waiting for the host would lie on top of those that are there.
    shared = max(map(len, rounds.values()), default=0) > LANES
    data: list[dict[str, Any]] = []
    table: list[list[Any]] = []
    findings: dict[int, str] = {}
    count = 1
    for number, rows in rounds.items():
        lanes = _lanes(rows, shared)
        count = max(count, len(set(lanes.values())))
        parts = intervals(rows)
        data.extend(
            {
                "round": number,
                "lane": lanes[id(part.row)],
                "host": part.row.get("host") or "host not known",
                "job": part.row["job"],
                "phase": part.phase,
                "start": seconds(part.start),
                "end": seconds(part.end),
                "seconds": seconds(part.end - part.start),
                "state": part.row["state"],
            }
            for part in parts
            if not shared or part.phase != "pending"
        )
        findings[number] = _finding(comparison, arm, rows, max((part.end for part in parts), default=0), shared)
        table.extend(
            [
                number,
                row["job"],
                row.get("host"),
                row.get("pending_s"),
                row.get("starting_s"),
                row.get("running_s"),
                seconds(row["_submitted"]),
                seconds(row["_end"]),
                row["state"],
            ]
            for row in rows
        )
    if not data:
        return None
    step = 9 if count <= 80 else max(2, round(720 / count))
    hosts = sorted({str(row["host"]) for row in data}, key=_natural)
    unknown = any(row["phase"] == "not known" for row in data)
    chart = (
        alt.Chart(inline(data))
        .mark_bar(height=max(step - 1, 1))
        .encode(
            x=alt.X("start:Q", title="seconds since the arm's first submission"),
            x2="end:Q",
            y=alt.Y("lane:O", axis=None),
            color=alt.Color(
                "phase:O",
                sort=list(PHASES),
                scale=alt.Scale(domain=list(PHASES if unknown else PHASES[:3])),
                title="phase",
            ),
            row=alt.Row(
                "host:N", title=None, sort=hosts, header=alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top")
            ),
            tooltip=[
                "job:N",
                "host:N",
                "phase:N",
                "state:N",
                alt.Tooltip("start:Q", title="from s"),
                alt.Tooltip("end:Q", title="to s"),
                "seconds:Q",
            ],
        )
        .properties(height=alt.Step(step))
        .resolve_scale(y="independent")
    )
    columns = ["round", "job", "host", "pending s", "starting s", "running s", "from s", "to s", "state"]
    return Chart(
        f"timeline-{comparison.names.index(arm)}",
        f"Every job on its host: {arm}",
        findings.get(comparison.shown_round, f"{arm} has no job in this round."),
        finish(of_a_round(comparison, chart)),
        columns,
        table,
        len(data) // len(rounds),
        findings,
    )


def _finding(comparison: Comparison, arm: str, rows: list[Row], length: float, shared: bool) -> str:
    """What the timeline of one round shows, in words."""
    by_host: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("host"):
            by_host.setdefault(str(row["host"]), []).append(row)
    words = f"{len(rows)} jobs in {_duration(length)}"
    if by_host:
        words += f" on {_count(len(by_host), 'host')}"
    packed = max(comparison.figures(arm)["hosts"], key=lambda host: host["peak_concurrency"], default=None)
    if packed and packed["host"] in by_host:
        words += f", at most {packed['peak_concurrency']} at once on {packed['host']}"
        words += " in any round" if len(comparison.rounds) > 1 else ""
    new = [str(host) for host in comparison.figures(arm).get("new_hosts") or () if host in by_host]
    if new:
        words += f"; new: {', '.join(new[:3])}"
    return words + "." + (" Jobs share the lines of their host; waiting in the queue is left out." if shared else "")


def _natural(text: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _lanes(rows: list[Row], shared: bool) -> dict[int, int]:
    """A line for each job in the order of starts; of very many jobs those of a host share lines where they can."""
    order = sorted(rows, key=lambda row: (row["_started"] if row["_started"] is not None else 1e18, row["sequence"]))
    if not shared:
        return {id(row): lane for lane, row in enumerate(order)}
    free: dict[str, list[float]] = {}
    lanes = {}
    for row in order:
        ends = free.setdefault(row.get("host") or "", [])
        start, end = row["_started"] or 0.0, row["_end"] or 0.0
        lane = next((lane for lane, until in enumerate(ends) if until <= start), len(ends))
        if lane == len(ends):
            ends.append(end)
        else:
            ends[lane] = end
        lanes[id(row)] = lane
    return lanes


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
