"""The charts of a report, as Vega-Lite: each with what it shows in words, and the same as a table."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import altair as alt

from jobrota.report.chart import Chart, finish, inline, of_a_round, seconds
from jobrota.report.rows import Comparison
from jobrota.report.timeline import timelines

__all__ = ["draw"]


def draw(comparison: Comparison) -> list[Chart]:
    """All charts for which the result has data, in the order of the page."""
    alt.data_transformers.disable_max_rows()
    makers: list[Callable[[Comparison], Chart | None]] = [
        _ratios,
        *timelines(comparison),
        _on_hosts,
        _hosts,
        _phases,
        _slopes,
        _rounds,
    ]
    return [chart for maker in makers if (chart := maker(comparison)) is not None]


def _arms(comparison: Comparison) -> Any:
    """The colour of arms: the same in every chart."""
    return alt.Color("arm:N", title="arm", scale=alt.Scale(domain=comparison.names), sort=comparison.names)


def _ratios(comparison: Comparison) -> Chart | None:
    gains = [gain for gain in comparison.analysis["comparisons"] if gain.get("ratio") is not None]
    if not gains:
        return None
    names = {
        "parallelism": "parallelism alone",
        "context": "context alone",
        "total": "both together",
        "mixed": "both, not told apart",
        "same": "nothing known",
    }
    data = [
        {
            "comparison": f"{gain['treatment']} / {gain['baseline']}",
            "differs": names.get(gain["kind"], gain["kind"]),
            "ratio": round(gain["ratio"], 4),
            "low": gain.get("low"),
            "high": gain.get("high"),
            "rounds": gain.get("rounds"),
            "difference": "claimed" if gain.get("claimed") else "not claimed",
        }
        for gain in gains
    ]
    # Two lines: which arms, and what they differ in.
    for row in data:
        row["label"] = f"{row['comparison']}|{row['differs']}"
    order = [row["label"] for row in data]
    base = alt.Chart(inline(data))
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelExpr="split(datum.label, '|')"))
    tooltip = [
        alt.Tooltip("comparison:N"),
        alt.Tooltip("differs:N", title="what differs"),
        alt.Tooltip("ratio:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("rounds:Q"),
        alt.Tooltip("difference:N"),
    ]
    x = alt.X("ratio:Q", title="times the baseline's makespan", scale=alt.Scale(type="log"))
    layers: list[Any] = [alt.Chart(inline([{"ratio": 1}])).mark_rule(strokeDash=[4, 4]).encode(x=x)]
    if any(row["low"] is not None for row in data):
        spans = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=3)
        layers.append(spans.encode(y=y, x=alt.X("low:Q", title=None), x2="high:Q"))
    # The rule's colour is that of the text: the colours of arms and phases mean something else.
    layers.append(base.mark_point(size=120, filled=True, opacity=1, style="rule").encode(x=x, y=y, tooltip=tooltip))
    chart = alt.layer(*layers).properties(height=46 * len(data))
    finding = "; ".join(gain["text"] for gain in gains)
    columns = ["comparison", "what differs", "ratio", "low", "high", "rounds", "difference"]
    keys = ["comparison", "differs", *columns[2:]]
    table = [[row[key] for key in keys] for row in data]
    return Chart("ratios", "What was gained", finding + ".", finish(chart), columns, table, len(data) * 2 + 1)


def _over_time(comparison: Comparison, key: str, title: str, column: str) -> Chart | None:
    data: list[dict[str, Any]] = []
    table: list[list[Any]] = []
    findings: dict[int, list[str]] = {}
    for arm in comparison.names:
        by_round: dict[int, list[tuple[float, int]]] = {}
        for moment in comparison.figures(arm)["concurrency"]:
            number = moment["round"]
            at = moment["at_s"] - comparison.zeros.get((arm, number), 0.0)
            by_round.setdefault(number, [(0.0, 0)]).append((max(at, 0.0), moment[column]))
        for number, moments in by_round.items():
            data.extend({"arm": arm, "round": number, "s": seconds(at), "count": count} for at, count in moments)
            most, length = max(count for _, count in moments), moments[-1][0]
            area = sum(count * (following[0] - at) for (at, count), following in pairwise(moments))
            mean = area / length if length else 0.0
            table.append([arm, number, most, round(mean, 2)])
            findings.setdefault(number, []).append(f"{arm} at most {most}, on average {mean:.1f}")
    if not data:
        return None
    chart = (
        alt.Chart(inline(data))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("s:Q", title="seconds since the arm's first submission"),
            y=alt.Y("count:Q", title=column, axis=alt.Axis(values=_whole(max(row["count"] for row in data)), format="d")),
            color=_arms(comparison),
            strokeDash=alt.StrokeDash(
                "arm:N", sort=comparison.names, title="arm", scale=alt.Scale(domain=comparison.names)
            ),
            tooltip=["arm:N", alt.Tooltip("s:Q", title="second"), "count:Q"],
        )
        .properties(height=220)
    )
    by_round_text = {number: f"{title}: {'; '.join(words)}." for number, words in findings.items()}
    return Chart(
        key,
        title,
        by_round_text.get(comparison.shown_round, ""),
        finish(of_a_round(comparison, chart)),
        ["arm", "round", "most", "mean"],
        table,
        len({row["arm"] for row in data}),
        by_round_text,
    )


def _whole(most: int) -> list[int]:
    """Whole numbers from 0 to `most` or a little more: hosts and jobs have no halves."""
    step = next(step for power in range(12) for step in (10**power, 2 * 10**power, 5 * 10**power) if most <= 8 * step)
    return list(range(0, most + step, step))


def _on_hosts(comparison: Comparison) -> Chart | None:
    return _over_time(comparison, "concurrency", "Jobs on hosts over time", "jobs")


def _hosts(comparison: Comparison) -> Chart | None:
    return _over_time(comparison, "hosts", "Hosts held over time", "hosts")


def _phases(comparison: Comparison) -> Chart | None:
    names = {"pending_s": "pending", "starting_s": "starting", "running_s": "running"}
    data = [
        {"arm": row["arm"], "phase": phase, "seconds": row[column], "job": row["job"]}
        for row in comparison.rows
        for column, phase in names.items()
        if row.get(column) is not None
    ]
    if not data:
        return None
    base = alt.Chart(inline(data))
    y = alt.Y("arm:N", sort=comparison.names, title=None)
    x = alt.X("seconds:Q", title="seconds")
    ticks = base.mark_tick(opacity=0.35, thickness=1, size=26).encode(
        x=x, y=y, color=_arms(comparison).legend(None), tooltip=["job:N", "arm:N", "phase:N", "seconds:Q"]
    )
    box = base.mark_boxplot(size=12, outliers=False, extent="min-max", opacity=0.75).encode(
        x=x, y=y, color=_arms(comparison).legend(None)
    )
    layers = alt.layer(ticks, box).properties(height=alt.Step(34))
    chart = layers.facet(
        row=alt.Row(
            "phase:O",
            sort=list(names.values()),
            title=None,
            header=alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top"),
        )
    ).resolve_scale(x="independent")
    columns = ["arm", "phase", "jobs", "mean s", "median s", "90th s", "95th s", "max s"]
    table = []
    words = []
    for arm in comparison.names:
        figures = comparison.figures(arm)
        medians = []
        for column, phase in names.items():
            spread = figures.get(column)
            if spread:
                table.append(
                    [
                        arm,
                        phase,
                        spread["count"],
                        *(seconds(spread[name]) for name in ("mean", "p50", "p90", "p95", "max")),
                    ]
                )
                medians.append(f"{phase} {spread['p50']:.0f} s")
        if medians:
            words.append(f"{arm}: {', '.join(medians)}")
    return Chart("phases", "Phases by arm", f"Medians: {'; '.join(words)}.", finish(chart), columns, table, len(data))


def _slopes(comparison: Comparison) -> Chart | None:
    if len(comparison.names) < 2:
        return None
    times: dict[tuple[str, str], list[float]] = {}
    for row in comparison.rows:
        if row.get("running_s") is not None:
            times.setdefault((row["job"], row["arm"]), []).append(row["running_s"])
    jobs = sorted({job for job, _ in times})
    both = [job for job in jobs if all((job, arm) in times for arm in comparison.names)]
    if not both:
        return None
    data: list[dict[str, Any]] = [
        {"job": job, "arm": arm, "seconds": round(median(times[job, arm]), 3)}
        for job in both
        for arm in comparison.names
    ]
    middle = [
        {"job": "median", "arm": arm, "seconds": round(median(median(times[job, arm]) for job in both), 3)}
        for arm in comparison.names
    ]
    x = alt.X(
        "arm:N",
        sort=comparison.names,
        title=None,
        axis=alt.Axis(labelAngle=0, labelLimit=180, labelOverlap=False),
        scale=alt.Scale(padding=0.3, type="point"),
    )
    positive = all(row["seconds"] > 0 for row in data)
    y = alt.Y(
        "seconds:Q",
        title="running, seconds" + (" (logarithmic)" if positive else ""),
        scale=alt.Scale(type="log" if positive else "linear"),
    )
    tooltip = ["job:N", "arm:N", alt.Tooltip("seconds:Q", title="running s")]
    lines = (
        alt.Chart(inline(data))
        .mark_line(strokeWidth=1, opacity=0.35, point=alt.OverlayMarkDef(size=14, opacity=0.6))
        .encode(x=x, y=y, detail="job:N", tooltip=tooltip)
    )
    thick = (
        alt.Chart(inline(middle))
        .mark_line(strokeWidth=4, point=alt.OverlayMarkDef(size=90))
        .encode(x=x, y=y, color=alt.value("#d55e00"), tooltip=tooltip)
    )
    chart = alt.layer(lines, thick).properties(height=340)
    words = ", ".join(f"{row['arm']} {row['seconds']:.0f} s" for row in middle)
    slower = sum(median(times[job, comparison.names[-1]]) > median(times[job, comparison.names[0]]) for job in both)
    first, last = comparison.names[0], comparison.names[-1]
    finding = (
        f"The same job in each arm; the thick line is the median job: {words}. "
        f"{slower} of {len(both)} jobs ran longer in {last} than in {first}."
    )
    table = [[job, *(round(median(times[job, arm]), 3) for arm in comparison.names)] for job in both]
    return Chart(
        "slopes",
        "Each job from arm to arm",
        finding,
        finish(chart),
        ["job", *(f"{arm}, running s" for arm in comparison.names)],
        table,
        len(both) + 1,
    )


def _rounds(comparison: Comparison) -> Chart | None:
    if len(comparison.rounds) < 2:
        return None
    data = [
        {"arm": arm["name"], "round": entry["round"], "makespan": seconds(entry["makespan_s"])}
        for arm in comparison.arms
        for entry in arm["rounds"]
        if entry.get("makespan_s") is not None
    ]
    if not data:
        return None
    chart = (
        alt.Chart(inline(data))
        .mark_line(point=alt.OverlayMarkDef(size=60))
        .encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("makespan:Q", title="makespan, seconds"),
            color=_arms(comparison),
            strokeDash=alt.StrokeDash(
                "arm:N", sort=comparison.names, title="arm", scale=alt.Scale(domain=comparison.names)
            ),
            tooltip=["arm:N", "round:O", alt.Tooltip("makespan:Q", title="makespan s")],
        )
        .properties(height=240)
    )
    words = []
    for arm in comparison.names:
        values = [row["makespan"] for row in data if row["arm"] == arm]
        if values:
            words.append(f"{arm} {min(values):,.0f} to {max(values):,.0f} s")
    table = [[row["arm"], row["round"], row["makespan"]] for row in data]
    return Chart(
        "rounds",
        "Makespan round by round",
        f"Over the rounds: {'; '.join(words)}.",
        finish(chart),
        ["arm", "round", "makespan s"],
        table,
        len(data),
    )
