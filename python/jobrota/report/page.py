"""The page of a report: the values that `templates/page.html` shows. Jinja2 escapes each of them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

import vl_convert
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from jobrota.report.chart import CLAIMABLE, Chart
from jobrota.report.rows import DIFFERENCES, Comparison
from jobrota.report.theme import theme

__all__ = ["frame", "render"]

# The page may use its own two scripts, which are named by their hashes, its styles, and no network. A script that comes
# with the data of a result does not run, also if it were not escaped. Vega compiles expressions of charts, hence eval.
POLICY = "default-src 'none'; script-src {scripts} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
MOST_ROWS = 1000
"""Rows of the table of a chart."""

COLUMNS = {
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
    "observe_lag_s": "observe lag s",
    "correlation": "found",
    "error": "error",
    "queue": "queue",
    "context": "context",
}
"""The columns of the table of all jobs, and their headings."""
FACTS = (
    ("makespan", "makespan_s", "mean", "s"),
    ("throughput", "throughput_per_hour", None, "jobs/h"),
    ("pending, median", "pending_s", "p50", "s"),
    ("pending, 95th", "pending_s", "p95", "s"),
    ("starting, median", "starting_s", "p50", "s"),
    ("running, median", "running_s", "p50", "s"),
    ("running per CPU second", "running_to_cpu", "p50", ""),
    ("peak concurrency", "peak_concurrency", None, ""),
    ("cold starts", "cold_starts", None, ""),
    ("host-seconds per job", "host_seconds_per_job", None, "s"),
    ("cost per job", "cost_per_job", None, ""),
    ("fairness (1 is even)", "fairness", None, ""),
)
"""Figures of an arm: name, key, part and unit."""

Cell = tuple[str | None, str | None]
"""The text of a cell, or None for an unknown value, and an alarm after it."""


def render(comparison: Comparison, charts: Sequence[Chart]) -> str:
    """Returns the HTML of the page.

    Args:
        comparison: The result.
        charts: The charts in their order.
    """
    templates = files("jobrota.report") / "templates"
    page, style, script = (
        (templates / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    environment = Environment(
        loader=DictLoader({"page.html": page}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    speed = comparison.metadata.get("speed")
    return environment.get_template("page.html").render(
        title=comparison.title,
        policy=POLICY.format(scripts=" ".join(map(_source, (library, script)))),
        # Only files of this package are not escaped.
        style=Markup(style),
        script=Markup(script),
        library=Markup(library),
        verdict=_verdict(comparison),
        gains=[_gain(gain) for gain in comparison.analysis["comparisons"]],
        arms=comparison.names,
        facts=_facts(comparison),
        rounds=_rounds(comparison, charts),
        shown_round=comparison.shown_round,
        charts=charts,
        most_rows=MOST_ROWS,
        warnings=comparison.warnings,
        about=_about(comparison.metadata),
        speed=None if speed in (None, 1) else f"{speed:g}",
        data=_data(comparison, charts),
    )


def frame(html: str, height: int) -> str:
    """Returns an HTML frame with the page `html`, so that its styles and those of a notebook stay separate.

    The page cannot leave the frame, submit a form or open a dialog. It keeps the notebook's origin, so that it can fit
    the frame to itself.
    """
    tag = Markup(
        '<iframe title="SAS Viya comparison" sandbox="allow-scripts allow-same-origin allow-downloads allow-popups" '
        'srcdoc="{html}" style="width:100%;height:{height:d}px;border:0"></iframe>'
    )
    return str(tag.format(html=html, height=height))


def _source(script: str) -> str:
    """Returns a script as the content security policy names it (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _data(comparison: Comparison, charts: Sequence[Chart]) -> dict[str, Any]:
    columns = [name for name in COLUMNS if any(row.get(name) is not None for row in comparison.rows)]
    return {
        "themes": {"light": theme(dark=False), "dark": theme(dark=True)},
        "charts": {
            chart.key: {"spec": chart.spec, "renderer": chart.renderer, "findings": chart.findings}
            for chart in charts
            if chart.spec is not None
        },
        "columns": [COLUMNS[name] for name in columns],
        "rows": [[row.get(name) for name in columns] for row in comparison.rows],
    }


def _verdict(comparison: Comparison) -> dict[str, Any]:
    verdict = comparison.analysis["verdict"]
    text, codes = str(verdict["text"]), list(verdict.get("cautions") or ())
    parts = [(text, False)]
    if codes:
        # The first mention of each warning is a link.
        split = re.split(rf"\b({'|'.join(map(re.escape, codes))})\b", text)
        parts = [(part, at % 2 == 1 and part not in split[1:at:2]) for at, part in enumerate(split)]
    rating = "open" if codes else {"faster": "good", "slower": "bad"}.get(verdict["code"], "open")
    return {"rating": rating, "parts": parts, "saved": _saved(comparison)}


def _saved(comparison: Comparison) -> str | None:
    """The time that the treatment of the verdict saves, with its interval."""
    at = comparison.analysis["verdict"].get("comparison")
    gain = comparison.analysis["comparisons"][at] if at is not None else {}
    if any(gain.get(name) is None for name in ("ratio", "low", "high")) or (gain.get("rounds") or 0) < CLAIMABLE:
        return None
    least, most = sorted((100 * (1 - gain["high"]), 100 * (1 - gain["low"])))
    digits = 0 if round(least) != round(most) else 1
    saved = 100 * (1 - gain["ratio"])
    text = f"{abs(saved):.{digits}f} % {_direction(saved)} time"
    if _direction(least) != _direction(most):
        return f"{text}, between {-least:.{digits}f} % more and {most:.{digits}f} % less"
    low, high = sorted((abs(least), abs(most)))
    return f"{text}, {low:.{digits}f} to {high:.{digits}f} %"


def _direction(saved: float) -> str:
    return "less" if saved >= 0 else "more"


def _gain(gain: Mapping[str, Any]) -> dict[str, str]:
    percent = gain.get("percent_saved")
    return {
        "difference": DIFFERENCES.get(gain["kind"], str(gain["kind"])).capitalize(),
        "share": "" if percent is None else f"{abs(percent):.0f} % {_direction(percent)} time",
        "text": gain["text"],
    }


def _facts(comparison: Comparison) -> list[tuple[str, list[Cell]]]:
    """The rows of the table of arms, with a cell for each arm."""
    arms, figures = comparison.arms, [comparison.figures(name) for name in comparison.names]
    facts: list[tuple[str, list[Cell]]] = [
        ("context", [(arm.get("context") or None, None) for arm in arms]),
        ("queue", [(arm.get("queue") or None, None) for arm in arms]),
        ("jobs in flight", [(_in_flight(arm), None) for arm in arms]),
        ("rounds", [_number(arm["rounds"]) for arm in figures]),
        ("jobs", [(f"{arm['completed']:,} done", _failed(arm["failed"])) for arm in figures]),
    ]
    for name, key, part, unit in FACTS:
        values = [arm.get(key) if part is None else (arm.get(key) or {}).get(part) for arm in figures]
        if key == "cold_starts":
            # Without known starts, the number of cold starts is not known either.
            started = {row["arm"] for row in comparison.rows if row["_started"] is not None}
            values = [value if arm in started else None for arm, value in zip(comparison.names, values, strict=True)]
        if any(value is not None for value in values) or key == "cold_starts":
            facts.append((name, [_number(value, unit) for value in values]))
    delays = [arm.get("scale_up_s") for arm in figures]
    if any(delay is not None for delay in delays):
        cells = [("no new host", None) if delay is None else _number(delay, "s") for delay in delays]
        facts.append(("first new host after", cells))
    facts.append(("hosts", [_number(len(arm["hosts"]) or None) for arm in figures]))
    return facts


def _failed(count: int) -> str | None:
    return f"{count:,} failed" if count else None


def _number(value: float | None, unit: str = "") -> Cell:
    if value is None:
        return None, None
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}" + (f"\u00a0{unit}" if unit else ""), None


def _in_flight(arm: Mapping[str, Any]) -> str | None:
    mode, concurrent = arm.get("mode"), arm.get("concurrent")
    if mode is None:
        return None if concurrent is None else f"{concurrent} at most"
    return {
        "sequential": "one at a time",
        "all": "all at once",
        "batch": f"batches of {concurrent}",
        "window": f"{concurrent} in flight",
    }.get(mode, str(mode))


def _rounds(comparison: Comparison, charts: Sequence[Chart]) -> list[int]:
    """The rounds to choose from, if a chart shows one of several."""
    rounds = comparison.rounds
    return rounds if len(rounds) > 1 and any(chart.findings and chart.spec for chart in charts) else []


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _about(metadata: Mapping[str, Any]) -> dict[str, Any]:
    keys = {"server": "base_url", "began": "execution_timestamp", "run": "run_id", "jobrota": "version"}
    return {name: metadata[key] for name, key in keys.items() if metadata.get(key)}
