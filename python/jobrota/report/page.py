"""The page: the verdict first, then charts, warnings and every job, in one file that asks nothing of a network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import vl_convert

from jobrota.report.chart import CLAIMABLE, Chart
from jobrota.report.rows import Comparison
from jobrota.report.theme import theme

__all__ = ["render"]

# Scripts and styles of the page itself, and nothing from anywhere: the charts' expressions are compiled, hence eval.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"

_COLUMNS = {
    "arm": "arm",
    "round": "round",
    "sequence": "no.",
    "job": "job",
    "state": "state",
    "host": "host",
    "pending_s": "pending s",
    "starting_s": "starting s",
    "running_s": "running s",
    "max_cpu_s": "CPU s",
    "jes_elapsed_ms": "elapsed ms",
    "observe_lag_s": "seen late s",
    "correlation": "found",
    "error": "error",
    "queue": "queue",
    "context": "context",
}
"""Of the table of all jobs: the columns of the rows, and what they are called."""

_FACTS = (
    ("makespan", "makespan_s", "mean", "s"),
    ("throughput", "throughput_per_hour", None, "jobs/h"),
    ("pending, median", "pending_s", "p50", "s"),
    ("pending, 95th", "pending_s", "p95", "s"),
    ("starting, median", "starting_s", "p50", "s"),
    ("running, median", "running_s", "p50", "s"),
    ("running per CPU second", "running_to_cpu", "p50", ""),
    ("jobs at once, most", "peak_concurrency", None, ""),
    ("cold starts", "cold_starts", None, ""),
    ("host-seconds per job", "host_seconds_per_job", None, "s"),
    ("cost per job", "cost_per_job", None, ""),
    ("fairness (1 is even)", "fairness", None, ""),
)


def render(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """The whole page.

    Args:
        comparison: What is shown.
        charts: The charts, in their order.
    """
    assets = files("jobrota.report") / "assets"
    parts = {
        "title": escape(comparison.title),
        "policy": _POLICY,
        "style": (assets / "page.css").read_text(encoding="utf-8"),
        "verdict": _verdict(comparison),
        "arms": _arms(comparison),
        "gains": _gains(comparison),
        "heading": escape(comparison.title),
        "rounds": _rounds(comparison, charts),
        "charts": "".join(_figure(chart) for chart in charts),
        "warnings": _warnings(comparison),
        "count": f"{len(comparison.rows):,}",
        "about": _about(comparison),
        "data": _json(_data(comparison, charts)),
        "library": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"),
        "script": (assets / "page.js").read_text(encoding="utf-8"),
    }
    page = (assets / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        # One marker each, and never twice: what is put in may hold anything.
        before, marker, after = page.partition(f"@@{name}@@")
        if not marker:
            raise RuntimeError(f"the page has no place for {name}")
        parts[name] = text
        page = before + "\x00" + name + "\x00" + after
    for name, text in parts.items():
        page = page.replace(f"\x00{name}\x00", text.replace("\x00", ""), 1)
    return page


def _json(value: Any) -> str:
    """JSON that is safe within a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _data(comparison: Comparison, charts: Sequence[Chart]) -> dict[str, Any]:
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in comparison.rows)]
    return {
        "themes": {"light": theme(dark=False), "dark": theme(dark=True)},
        "charts": {
            chart.key: {"spec": chart.spec, "renderer": chart.renderer, "findings": chart.findings}
            for chart in charts
            if chart.spec is not None
        },
        "columns": [_COLUMNS[name] for name in columns],
        "rows": [[row.get(name) for name in columns] for row in comparison.rows],
    }


def _verdict(comparison: Comparison) -> str:
    verdict = comparison.analysis["verdict"]
    kind = {"faster": "good", "slower": "bad"}.get(verdict["code"], "open")
    if verdict.get("cautions"):
        kind = "open"
    text = escape(str(verdict["text"]))
    for code in map(escape, verdict.get("cautions") or ()):
        text = re.sub(rf"\b{re.escape(code)}\b", f'<a href="#warnings">{code}</a>', text, count=1)
    percent = _percent(comparison)
    more = f'<p class="percent">{percent}</p>' if percent else ""
    return f'<div class="verdict {kind}"><p id="verdict">{text}</p>{more}</div>'


def _percent(comparison: Comparison) -> str:
    """The time that the verdict's comparison saves, with its interval, where there is one."""
    at = comparison.analysis["verdict"].get("comparison")
    gain = comparison.analysis["comparisons"][at] if at is not None else {}
    if any(gain.get(name) is None for name in ("ratio", "low", "high")) or (gain.get("rounds") or 0) < CLAIMABLE:
        return ""
    least, most = sorted((100 * (1 - gain["high"]), 100 * (1 - gain["low"])))
    digits = 0 if round(least) != round(most) else 1

    def way(value: float) -> str:
        return "less" if value >= 0 else "more"

    saved = 100 * (1 - gain["ratio"])
    words = f"{abs(saved):.{digits}f} % {way(saved)} time"
    if way(least) != way(most):
        return f"{words}, between {-least:.{digits}f} % more and {most:.{digits}f} % less"
    low, high = sorted((abs(least), abs(most)))
    return f"{words}, {low:.{digits}f} to {high:.{digits}f} %"


def _number(value: Any, unit: str) -> str:
    if value is None:
        return '<span class="none">not known</span>'
    if isinstance(value, float) and not value.is_integer():
        text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
    elif isinstance(value, float):
        text = f"{value:,.0f}"
    else:
        text = f"{value:,}"
    return text + (f"&nbsp;{unit}" if unit else "")


def _arms(comparison: Comparison) -> str:
    heads = "".join(
        f'<th scope="col"><span class="swatch s{number % 6}" aria-hidden="true"></span>'
        f"{escape(name).replace('_', '_<wbr>')}</th>"
        for number, name in enumerate(comparison.names)
    )

    def line(title: str, cells: Sequence[str]) -> str:
        return f'<tr><th scope="row">{title}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"

    arms, figures = comparison.arms, [comparison.figures(name) for name in comparison.names]
    known = '<span class="none">not known</span>'
    lines = [
        line("context", [escape(str(arm.get("context") or "")) or known for arm in arms]),
        line("queue", [escape(str(arm.get("queue") or "")) or known for arm in arms]),
        line("jobs in flight", [_flight(arm) for arm in arms]),
        line("rounds", [_number(each["rounds"], "") for each in figures]),
        line(
            "jobs",
            [
                f"{each['completed']:,} done"
                + (f', <strong class="bad">{each["failed"]:,} failed</strong>' if each["failed"] else "")
                for each in figures
            ],
        ),
    ]
    for title, key, part, unit in _FACTS:
        values = [each.get(key) if part is None else (each.get(key) or {}).get(part) for each in figures]
        if key == "cold_starts":
            # No known start is not the same as none that was cold.
            started = [_started(comparison, name) for name in comparison.names]
            values = [value if known else None for known, value in zip(started, values, strict=True)]
        if any(value is not None for value in values) or key == "cold_starts":
            lines.append(line(title, [_number(value, unit) for value in values]))
    if any(each.get("scale_up_s") is not None for each in figures):
        came = [each.get("scale_up_s") for each in figures]
        lines.append(
            line("first new host after", [_number(value, "s") if value is not None else "none came" for value in came])
        )
    lines.append(line("hosts", [_number(len(each["hosts"]) or None, "") for each in figures]))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures of the arms"><table class="facts"><caption>'
        f"Each arm, from the server's own account</caption><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _started(comparison: Comparison, arm: str) -> bool:
    return any(row["_started"] is not None for row in comparison.rows if row["arm"] == arm)


def _flight(arm: Any) -> str:
    mode, concurrent = arm.get("mode"), arm.get("concurrent")
    if mode is None:
        return "not known" if concurrent is None else f"{concurrent} at most"
    return {
        "sequential": "one at a time",
        "all": "all at once",
        "batch": f"batches of {concurrent}",
        "window": f"{concurrent} in flight",
    }.get(mode, escape(str(mode)))


def _gains(comparison: Comparison) -> str:
    gains = comparison.analysis["comparisons"]
    if not gains:
        return ""
    words = {
        "parallelism": "Parallelism",
        "context": "Context",
        "total": "Both together",
        "mixed": "Both, mixed",
        "same": "Nothing known",
    }
    items = []
    for gain in gains:
        percent = gain.get("percent_saved")
        share = "" if percent is None else f"{abs(percent):.0f} % {'less' if percent >= 0 else 'more'} time"
        items.append(
            f"<li><strong>{words.get(gain['kind'], escape(str(gain['kind'])))}</strong> "
            f"<span class='share'>{share}</span> {escape(str(gain['text']))}.</li>"
        )
    return f'<ul class="gains">{"".join(items)}</ul>'


def _rounds(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """Where the round of the charts that show one is chosen."""
    rounds, shown = comparison.rounds, comparison.shown_round
    if len(rounds) < 2 or not any(chart.findings and chart.spec for chart in charts):
        return ""
    options = "".join(
        f'<option value="{number}"{" selected" if number == shown else ""}>{number} of {len(rounds)}</option>'
        for number in rounds
    )
    return (
        '<div class="choice"><label for="round">Round that the timelines and the charts over time show</label> '
        f'<select id="round" autocomplete="off">{options}</select></div>'
    )


def _figure(chart: Chart) -> str:
    key = escape(chart.key)
    if chart.spec is None:
        words = f'<h3>{escape(chart.title)}</h3><p class="none">{escape(chart.finding)}</p>'
        return f'<figure id="figure-{key}">{words}</figure>'
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in chart.columns)
    limit = 1000
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in chart.rows[:limit]
    )
    more = (
        f"<p>The first {limit:,} of {len(chart.rows):,} rows"
        + ("; the table of all jobs, at the end of the page, has the others.</p>" if chart.of_jobs else ".</p>")
        if len(chart.rows) > limit
        else ""
    )
    return (
        f'<figure id="figure-{key}"><h3 id="title-{key}">{escape(chart.title)}</h3>'
        f'<div class="chart" id="{key}" role="img" aria-labelledby="title-{key}" '
        f'aria-describedby="finding-{key}"></div><p class="picked" id="picked-{key}" aria-live="polite"></p>'
        f'<figcaption id="finding-{key}">{escape(chart.finding)}</figcaption>'
        f"<details><summary>The same as a table</summary>{more}"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(chart.title)}, as a table"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details></figure>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _warnings(comparison: Comparison) -> str:
    if not comparison.warnings:
        return "<p>Nothing speaks against relying on the comparison.</p>"
    items = "".join(
        f"<li><code>{escape(str(warning['code']))}</code> {escape(str(warning['text']))}</li>"
        for warning in comparison.warnings
    )
    return f'<ol class="warnings">{items}</ol>'


def _about(comparison: Comparison) -> str:
    metadata = comparison.metadata
    facts = {
        "server": metadata.get("base_url"),
        "began": metadata.get("execution_timestamp"),
        "run": metadata.get("run_id"),
        "jobrota": metadata.get("version"),
    }
    text = ", ".join(f"{name} {escape(str(value))}" for name, value in facts.items() if value)
    speed = metadata.get("speed")
    if speed not in (None, 1, 1.0):
        text += f". A sandbox was the server: {speed:g} of its seconds passed in a real one"
    return text or "a run that was recorded elsewhere"
