"""The charts of a report in Vega-Lite. Each has a finding in words and a table with its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

import altair as alt

from jobrota.report.chart import CLAIMABLE, Chart, finish, named, of_a_round, seconds, unknown
from jobrota.report.rows import DIFFERENCES, Comparison, Row
from jobrota.report.timeline import timelines

__all__ = ["draw"]

LINES = 150
"""The most lines of jobs. More jobs are shown as a band and a median."""
LARGEST = 10
"""The number of jobs with the largest change that are drawn beside the band."""


def draw(comparison: Comparison) -> list[Chart]:
    """Returns the charts for which the result has data, in the order of the page."""
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
    """Returns the colours of arms, which are the same in every chart."""
    return alt.Color("arm:N", title="arm", scale=alt.Scale(domain=comparison.names), sort=comparison.names)


def _ratios(comparison: Comparison) -> Chart | None:
    gains = [gain for gain in comparison.analysis["comparisons"] if gain.get("ratio") is not None]
    if not gains:
        return None
    data = [
        {
            "comparison": f"{gain['treatment']} / {gain['baseline']}",
            "differs": DIFFERENCES.get(gain["kind"], gain["kind"]),
            "ratio": round(gain["ratio"], 4),
            "low": gain.get("low"),
            "high": gain.get("high"),
            "rounds": gain.get("rounds"),
            "difference": "claimed" if gain.get("claimed") else "not claimed",
            # Three lines, so that labels that are cut still differ.
            "label": f"{gain['treatment']}|/ {gain['baseline']}|{DIFFERENCES.get(gain['kind'], gain['kind'])}",
        }
        for gain in gains
    ]
    chart = _ratio_chart(data)
    finding = "; ".join(gain["text"] for gain in gains)
    columns = ["comparison", "what differs", "ratio", "low", "high", "rounds", "difference"]
    keys = ["comparison", "differs", *columns[2:]]
    table = [[row[key] for key in keys] for row in data]
    spec = finish(chart, {"rows": data, "one": [{"ratio": 1}]})
    return Chart("ratios", "Gain", finding + ".", spec, columns, table, len(data) * 2 + 1)


def _ratio_chart(data: list[dict[str, Any]]) -> Any:
    """Draws a short tick for each ratio, filled if the difference is claimed, and its interval."""
    spans = [row for row in data if row["low"] is not None and row["high"] is not None]
    spans = [row for row in spans if (row["rounds"] or 0) >= CLAIMABLE]
    for row in spans:
        row["interval"] = True
    values = [1, *(row["ratio"] for row in data), *(row[end] for row in spans for end in ("low", "high"))]
    logarithmic = min(values) > 0
    # `nice` would extend the axis to powers of ten, and make an interval very small.
    domain = [round(min(values) / 1.15, 4), round(max(values) * 1.15, 4)]
    scale = alt.Scale(type="log" if logarithmic else "linear", domain=domain, nice=False)
    # Both layers name the axis: without a title, Vega-Lite joins those of all layers.
    title = "times the baseline's makespan" + (" (log)" if logarithmic else "")
    axis = alt.Axis(format="~g", tickCount=6)
    x = alt.X("ratio:Q", title=title, scale=scale, axis=axis)
    y = alt.Y(
        "label:N",
        sort=[row["label"] for row in data],
        title=None,
        axis=alt.Axis(labelExpr="split(datum.label, '|')", labelLineHeight=14),
    )
    tooltip = [
        alt.Tooltip("comparison:N"),
        alt.Tooltip("differs:N", title="what differs"),
        alt.Tooltip("ratio:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("rounds:Q"),
        alt.Tooltip("difference:N"),
    ]
    base = alt.Chart(named())
    layers: list[Any] = [alt.Chart(named("one")).mark_rule(strokeDash=[4, 4]).encode(x=x)]
    if spans:
        ends = base.transform_filter("datum.interval").mark_rule(strokeWidth=3)
        layers.append(ends.encode(y=y, x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q"))
    # In the colour of text, because the colours of arms and phases have other meanings.
    tick = {"shape": "M-.12,-.7H.12V.7H-.12Z", "size": 500, "opacity": 1, "color": alt.ExprRef("ink")}
    for difference, filled in (("claimed", True), ("not claimed", False)):
        if any(row["difference"] == difference for row in data):
            some = base.transform_filter(f"datum.difference == '{difference}'").mark_point(filled=filled, **tick)
            layers.append(some.encode(x=x, y=y, tooltip=tooltip))
    return alt.layer(*layers).properties(height=60 * len(data))


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
        return None if comparison.orchestrated else unknown(key, title)
    ticks = _count_ticks(max(row["count"] for row in data))
    chart = (
        alt.Chart(named())
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("s:Q", title="seconds since the arm's first submission"),
            y=alt.Y("count:Q", title=column, axis=alt.Axis(values=ticks, format="d")),
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
        of_a_round(comparison, finish(chart, {"rows": data})),
        ["arm", "round", "most", "mean"],
        table,
        len({row["arm"] for row in data}),
        by_round_text,
    )


def _count_ticks(most: int) -> list[int]:
    """Returns integers from 0 to `most` or a little more, as the ticks of a count."""
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
        return None if comparison.orchestrated else unknown("phases", "Phases by arm")
    base = alt.Chart()
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
        data=named(),
        row=alt.Row(
            "phase:O",
            sort=list(names.values()),
            title=None,
            header=alt.Header(labelAngle=0, labelAnchor="start", labelOrient="top"),
        ),
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
    finding = f"Medians: {'; '.join(words)}."
    return Chart("phases", "Phases by arm", finding, finish(chart, {"rows": data}), columns, table, len(data))


def _slopes(comparison: Comparison) -> Chart | None:
    if len(comparison.names) < 2:
        return None
    times = _running(comparison)
    jobs = sorted({job for job, _ in times})
    both = [job for job in jobs if all((job, arm) in times for arm in comparison.names)]
    if not both:
        return None if comparison.orchestrated else unknown("slopes", "Each job from arm to arm")
    first, last = comparison.names[0], comparison.names[-1]
    middle = {arm: median(times[job, arm] for job in both) for arm in comparison.names}
    many = len(both) > LINES
    lines = both
    if many:
        lines = sorted(both, key=lambda job: -_change(times[job, first], times[job, last]))[:LARGEST]
    datasets = {
        "rows": [
            {"job": job, "arm": arm, "seconds": round(times[job, arm], 3)} for job in lines for arm in comparison.names
        ],
        "middle": [{"job": "median", "arm": arm, "seconds": round(middle[arm], 3)} for arm in comparison.names],
    }
    if many:
        datasets["band"] = [_band(arm, sorted(times[job, arm] for job in both)) for arm in comparison.names]
    words = ", ".join(f"{arm} {middle[arm]:.0f} s" for arm in comparison.names)
    slower = sum(times[job, last] > times[job, first] for job in both)
    shown = "The same job in each arm; the thick line is the median job"
    if many:
        shown = (
            f"{len(both):,} jobs: the band has the middle 80 % of them, the thick line is the median job, "
            f"and thin lines are the {LARGEST} jobs that changed most"
        )
    finding = f"{shown}: {words}. {slower:,} of {len(both):,} jobs ran longer in {last} than in {first}."
    table = [[job, *(round(times[job, arm], 3) for arm in comparison.names)] for job in both]
    return Chart(
        "slopes",
        "Each job from arm to arm",
        finding,
        finish(_slope_chart(comparison, datasets), datasets),
        ["job", *(f"{arm}, running s" for arm in comparison.names)],
        table,
        # A line for each job, and a point for it in each arm.
        (len(lines) + 1) * (len(comparison.names) + 1) + many,
    )


def _running(comparison: Comparison) -> dict[tuple[str, str], float]:
    """Returns the running seconds of each job and arm, as the median of the rounds. Duplicate names get a number."""
    counts = Counter((row["arm"], row["round"], row["job"]) for row in comparison.rows)
    repeated = {job for (_, _, job), count in counts.items() if count > 1}

    def name(row: Row) -> str:
        return f"{row['job']} (no. {row['sequence']})" if row["job"] in repeated else row["job"]

    times: dict[tuple[str, str], list[float]] = {}
    for row in comparison.rows:
        if row.get("running_s") is not None:
            times.setdefault((name(row), row["arm"]), []).append(row["running_s"])
    return {place: median(values) for place, values in times.items()}


def _change(before: float, after: float) -> float:
    """Returns the change of a job as a factor of at least 1; infinity from or to zero."""
    if before > 0 and after > 0:
        return max(before / after, after / before)
    return 1.0 if before == after else float("inf")


def _band(arm: str, values: list[float]) -> dict[str, Any]:
    tenths = quantiles(values, n=10, method="inclusive")
    return {"arm": arm, "low": round(tenths[0], 3), "high": round(tenths[-1], 3)}


def _slope_chart(comparison: Comparison, datasets: dict[str, list[dict[str, Any]]]) -> Any:
    # In a narrow chart, names break at underscores.
    expression = "width < 480 ? split(replace(datum.label, regexp('_', 'g'), '_|'), '|') : datum.label"
    x = alt.X(
        "arm:N",
        sort=comparison.names,
        title=None,
        axis=alt.Axis(
            labelAngle=0,
            labelLimit=alt.ExprRef(f"max(width / {len(comparison.names)} - 6, 40)"),
            labelOverlap=False,
            labelExpr=expression,
        ),
        scale=alt.Scale(padding=0.5, type="point"),
    )
    rows = [row for rows in datasets.values() for row in rows]
    positive = min(row[key] for row in rows for key in ("seconds", "low", "high") if key in row) > 0
    title = "running, seconds" + (" (logarithmic)" if positive else "")
    scale = alt.Scale(type="log" if positive else "linear")
    y = alt.Y("seconds:Q", title=title, scale=scale)
    tooltip: list[Any] = ["job:N", "arm:N", alt.Tooltip("seconds:Q", title="running s")]
    layers: list[Any] = []
    if "band" in datasets:
        band = alt.Chart(named("band")).mark_area(color=alt.ExprRef("band"), interpolate="linear")
        layers.append(band.encode(x=x, y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"))
    base = alt.Chart(named()).encode(x=x, y=y, tooltip=tooltip)
    layers.append(base.mark_line(strokeWidth=1, color=alt.ExprRef("slope")).encode(detail="job:N"))
    layers.append(base.mark_point(size=14, filled=True, opacity=1, color=alt.ExprRef("slope")))
    thick = alt.Chart(named("middle")).mark_line(strokeWidth=4, point=alt.OverlayMarkDef(size=90))
    layers.append(thick.encode(x=x, y=y, color=alt.value("#d55e00"), tooltip=tooltip))
    return alt.layer(*layers).properties(height=340)


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
        alt.Chart(named())
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
        finish(chart, {"rows": data}),
        ["arm", "round", "makespan s"],
        table,
        len(data),
    )
