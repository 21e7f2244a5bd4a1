"""The timeline of an arm: every job on its host, coloured by phase."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import altair as alt

from jobrota.report.chart import Chart, finish, named, of_a_round, seconds
from jobrota.report.rows import Comparison, Interval, Row, ended_well, intervals

__all__ = ["timelines"]

PHASES = ("pending", "starting", "running", "not known")
LANES = 220
"""The most jobs with a line each. More jobs share the lines of their host."""
NAMED_LANES = 60
"""The most lines with the name of the job beside them."""
LANE_DIGITS = 4


def timelines(comparison: Comparison) -> list[Callable[[Comparison], Chart | None]]:
    """Returns a function for each arm that draws its timeline."""

    def maker(arm: str) -> Callable[[Comparison], Chart | None]:
        return lambda comparison: _timeline(comparison, arm)

    return [maker(arm) for arm in comparison.names]


def _timeline(comparison: Comparison, arm: str) -> Chart | None:
    rounds = {number: rows for number in comparison.rounds if (rows := comparison.of_round(arm, number))}
    # On shared lines, the wait of one job would cover the run of another.
    shared = max(map(len, rounds.values()), default=0) > LANES
    data: list[dict[str, Any]] = []
    table: list[list[Any]] = []
    findings: dict[int, str] = {}
    count = 1
    for number, rows in rounds.items():
        parts = intervals(rows)
        drawn = [part for part in parts if not shared or part.phase != "pending"]
        lanes = _lanes(drawn, shared)
        count = max(count, len(set(lanes.values())))
        data.extend(_bars(number, drawn, lanes, shared))
        findings[number] = _finding(comparison, arm, number, rows, parts, shared)
        table.extend(_table(number, rows))
    if not data:
        return None
    chart = _chart(data, count, shared, comparison.length)
    columns = ["round", "job", "host", "pending s", "starting s", "running s", "from s", "to s", "state"]
    return Chart(
        f"timeline-{comparison.names.index(arm)}",
        f"Every job on its host: {arm}",
        findings.get(comparison.shown_round, f"{arm} has no job in this round."),
        of_a_round(comparison, finish(chart, {"rows": data})),
        columns,
        table,
        len(data) // len(rounds),
        findings,
        of_jobs=True,
    )


def _bars(number: int, parts: Iterable[Interval], lanes: dict[int, int], shared: bool) -> list[dict[str, Any]]:
    """Returns a row for each part. The name of a job that did not complete has a cross."""
    bars = []
    for part in parts:
        row, place = part.row, id(part.row)
        cross = "" if ended_well(row) else "✕ "
        bar = {
            "round": number,
            # The name is the label of the line, and the digits keep the order.
            "lane": f"{lanes[place]:0{LANE_DIGITS}}{cross}{row['job']}" if not shared else lanes[place],
            "host": row.get("host") or "host not known",
            "job": row["job"],
            "phase": part.phase,
            "start": seconds(part.start),
            "end": seconds(part.end),
            "seconds": seconds(part.end - part.start),
            "state": row["state"],
        }
        bars.append(bar)
    return bars


def _table(number: int, rows: Iterable[Row]) -> list[list[Any]]:
    return [
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
    ]


def _chart(data: list[dict[str, Any]], count: int, shared: bool, length: float) -> Any:
    """Draws bars in rows of hosts, with the names of jobs if there are few lines."""
    names = count <= NAMED_LANES and not shared
    step = 12 if names else 9 if count <= 80 else max(2, round(720 / count))
    hosts = sorted({str(row["host"]) for row in data}, key=_natural)
    occurring = [phase for phase in PHASES if any(row["phase"] == phase for row in data)]
    # The scale has all phases, so that each has the same colour in every chart.
    phase: dict[str, Any] = {"shorthand": "phase:O", "title": "phase"}
    phase |= {"scale": alt.Scale(domain=list(PHASES)), "legend": alt.Legend(values=occurring)}
    axis = None
    if names:
        # A narrow page has no such axis.
        axis = alt.Axis(
            labelExpr=f"slice(datum.label, {LANE_DIGITS})", labelFontSize=10, labelLimit=150, domain=False, ticks=False
        )
    y = alt.Y("lane:O", title=None, axis=axis)
    scale = alt.Scale(domain=[0, round(length, 3)], nice=False) if length > 0 else alt.Scale()
    ticks = alt.Axis(tickCount=8, labelOverlap=True)
    x = alt.X("start:Q", title="seconds since the arm's first submission", scale=scale, axis=ticks)
    tooltip = [
        "job:N",
        "host:N",
        "phase:N",
        "state:N",
        alt.Tooltip("start:Q", title="from s"),
        alt.Tooltip("end:Q", title="to s"),
        "seconds:Q",
    ]
    # The stroke makes parts visible that are shorter than a pixel.
    failed = "datum.state != 'completed'"
    bars = (
        alt.Chart()
        .mark_bar(height=max(step - 2, 1), strokeWidth=1)
        .encode(
            x=x,
            x2="end:Q",
            y=y,
            color=alt.Color(**phase),
            # Jobs that did not complete are pale with an edge. A layer of crosses would be a second source of lanes,
            # and Vega-Lite warns about that.
            stroke=alt.condition(failed, alt.value(alt.ExprRef("failed")), alt.Stroke(**phase)),
            fillOpacity=alt.condition(failed, alt.value(0.3), alt.value(1)),
            tooltip=tooltip,
        )
    )
    header = alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top")
    return (
        bars.properties(height=alt.Step(step))
        .facet(data=named(), row=alt.Row("host:N", title=None, sort=hosts, header=header))
        .resolve_scale(y="independent")
    )


def _finding(
    comparison: Comparison, arm: str, number: int, rows: list[Row], parts: list[Interval], shared: bool
) -> str:
    """Returns the finding of one round."""
    by_host: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("host"):
            by_host.setdefault(str(row["host"]), []).append(row)
    words = f"{len(rows)} jobs in {_duration(max((part.end for part in parts), default=0))}"
    if by_host:
        words += f" on {_count(len(by_host), 'host')}"
        peaks = {host: _peak(on_host, parts) for host, on_host in by_host.items()}
        packed = max(peaks, key=lambda host: peaks[host])
        words += f", at most {peaks[packed]} at once on {packed}" if peaks[packed] else ""
    new = _new_hosts(comparison, arm, number)
    if new:
        more = f" and {len(new) - 3} more" if len(new) > 3 else ""
        words += f"; new: {', '.join(new[:3])}{more}"
    failed = sum(not ended_well(row) for row in rows)
    if failed:
        words += f"; {failed} did not end well (✕, pale with a red edge)"
    return words + "." + (" Jobs share the lines of their host; waiting in the queue is left out." if shared else "")


def _peak(rows: list[Row], parts: list[Interval]) -> int:
    """Returns the most jobs on the host at once. A job that starts at the end of another does not overlap it."""
    mine = {id(row) for row in rows}
    spans: dict[int, tuple[float, float]] = {}
    for part in parts:
        place = id(part.row)
        if place in mine and part.row["_started"] is not None and part.phase != "pending":
            start, end = spans.get(place, (part.start, part.end))
            spans[place] = (min(start, part.start), max(end, part.end))
    changes = Counter[tuple[float, int]]()
    for start, end in spans.values():
        if end > start:
            changes[start, 1] += 1
            changes[end, -1] += 1
    most = now = 0
    for (_, change), count in sorted(changes.items()):
        now += change * count
        most = max(most, now)
    return most


def _new_hosts(comparison: Comparison, arm: str, number: int) -> list[str]:
    """Returns the new hosts of the arm that began in this round."""
    hosts = comparison.figures(arm)["hosts"]
    return sorted((host["host"] for host in hosts if host["new"] and host.get("first_round") == number), key=_natural)


def _natural(text: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _lanes(parts: Iterable[Interval], shared: bool) -> dict[int, int]:
    """Returns the line of each job, in the order of starts. With `shared`, jobs of a host share lines."""
    spans: dict[int, Interval] = {}
    for part in parts:
        span = spans.setdefault(id(part.row), Interval(part.row, "", part.start, part.end))
        span.start, span.end = min(span.start, part.start), max(span.end, part.end)

    def place(span: Interval) -> tuple[float, int]:
        started = span.row["_started"]
        return started if started is not None else 1e18, span.row["sequence"]

    order = sorted(spans.values(), key=place)
    if not shared:
        return {id(span.row): lane for lane, span in enumerate(order)}
    free: dict[str, list[float]] = {}
    lanes = {}
    for span in order:
        ends = free.setdefault(span.row.get("host") or "", [])
        lane = next((lane for lane, until in enumerate(ends) if until <= span.start), len(ends))
        if lane == len(ends):
            ends.append(span.end)
        else:
            ends[lane] = span.end
        lanes[id(span.row)] = lane
    return lanes


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
