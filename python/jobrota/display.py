"""HTML of jobrota's objects for notebooks.

Every value is escaped, because job names and statuses come from other systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

__all__ = ["repr_html"]

_TITLES = {
    "selection": "Selected VM",
    "selector": "Round-robin selector",
    "inventory": "Inventory",
    "ledger": "Job ledger",
    "ledger_summary": "Job ledger",
    "delivery_report": "Delivery cycle",
    "import_report": "Import of legacy JSON files",
    "maintenance": "Maintenance",
    "comparison_result": "SAS Viya comparison",
    "updater": "AutoSys updater",
    "runner": "SAS Viya comparison runner",
    "sandbox": "Sandbox (local stand-ins)",
}
_BAD = {"failed", "unknown", "parked", "failed_jobs", "expired", "bad", "bad_records"}
# White on red: no shade of red text is readable on both a light and a dark background.
_ALARM = "background:#b3261e;color:#fff;font-weight:600;border-radius:3px;padding:.05em .4em"
_BARS = {"share", "selections"}
_AGES = {"under_15m": "under 15 min", "15m_to_1h": "15 min–1 h", "1h_to_24h": "1–24 h", "over_24h": "older"}


def repr_html(obj_kind: str, data: Mapping[str, Any] | Sequence[Any]) -> str:
    """Returns the HTML of an object: a box with a title, its facts, and a table for each list of rows.

    Args:
        obj_kind: Which object: selection, inventory, ledger, …
        data: Its facts by name, or rows.

    >>> repr_html("selection", {"vm": "<b>"}).count("&lt;b&gt;")
    1
    """
    title = _TITLES.get(obj_kind, obj_kind.replace("_", " "))
    if obj_kind == "selector" and isinstance(data, Mapping):
        rest = {name: value for name, value in data.items() if name != "distribution"}
        body = _render(rest) + _turns(data.get("distribution", ()))
    elif obj_kind == "comparison_result" and isinstance(data, Mapping):
        body = _comparison(data)
    elif obj_kind in ("ledger", "ledger_summary", "updater") and isinstance(data, Mapping):
        body = _deliveries(data)
    else:
        body = _render(data)
    return (
        '<div style="display:inline-block;border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:.6em .9em;'
        f'margin:.2em 0"><div style="font-weight:600;margin-bottom:.4em">{escape(title)}</div>{body}</div>'
    )


def _render(data: Any) -> str:
    if isinstance(data, Mapping):
        facts = {name: value for name, value in data.items() if not _is_nested(value)}
        parts = [_facts(facts)] if facts else []
        for name, value in data.items():
            if _is_nested(value):
                parts.append(f'<div style="opacity:.75;margin:.5em 0 .2em">{_label(name)}</div>{_render(value)}')
        return "".join(parts)
    rows = list(data)
    if not rows:
        return '<div style="opacity:.6">none</div>'
    if all(isinstance(row, Mapping) for row in rows):
        return _table(rows)
    return "<div>" + "<br>".join(_value(row) for row in rows) + "</div>"


def _turns(rows: Sequence[Sequence[Any]]) -> str:
    """Returns a bar per VM with its turns, its share and its last turn. For screen readers it is a table.

    The one colour has a contrast of at least 3:1 to white and to black. Everything else uses the notebook's own
    colours, so that it works with dark and light themes.
    """
    if not rows:
        return ""
    counts = [int(row[1]) for row in rows]
    total, largest = sum(counts), max(*counts, 1)
    cell = "padding:.15em .9em .15em 0;vertical-align:middle"
    head = "".join(
        f'<th scope="col" style="text-align:{side};font-weight:normal;opacity:.75;{cell}">{text}</th>'
        for text, side in (("VM", "left"), ("turns", "left"), ("", "right"), ("share", "right"), ("last turn", "left"))
    )
    lines = ""
    for (vm, _, share, *last), count in zip(rows, counts, strict=True):
        # A visible minimum width distinguishes "once" from "never".
        width = max(100 * count / largest, 0.8) if count else 0
        bar = (
            '<div aria-hidden="true" style="width:16em;height:.85em;background:rgba(128,128,128,.2);border-radius:2px">'
            f'<div style="width:{width:.1f}%;height:100%;background:#3b7ddd;border-radius:2px"></div></div>'
        )
        at = _value(last[0]) if last and last[0] is not None else "never"
        lines += (
            f'<tr><th scope="row" style="text-align:left;font-weight:600;{cell}">{_value(vm)}</th>'
            f'<td style="{cell}">{bar}</td>'
            f'<td style="text-align:right;font-variant-numeric:tabular-nums;{cell}">{count:,}</td>'
            f'<td style="text-align:right;font-variant-numeric:tabular-nums;{cell}">{100 * share:.1f} %</td>'
            f'<td style="text-align:left;opacity:.75;{cell}">{at}</td></tr>'
        )
    turns = "1 turn" if total == 1 else f"{total:,} turns"
    vms = "1 VM" if len(rows) == 1 else f"{len(rows):,} VMs"
    return (
        '<table style="margin:.5em 0 0;border-collapse:collapse;background:transparent;color:inherit">'
        f'<caption style="text-align:left;opacity:.75;padding:0 0 .3em;color:inherit">{turns} of {vms}</caption>'
        f"<tr>{head}</tr>{lines}</table>"
    )


def _deliveries(data: Mapping[str, Any]) -> str:
    """Returns what is pending, the problems, and the success of deliveries; counts of the tables come last.

    The summary is `data` itself, or its item `summary` with other facts beside it.
    """
    nested = data.get("summary")
    summary = nested if isinstance(nested, Mapping) else data
    rest = {name: value for name, value in data.items() if name != "summary"} if summary is nested else {}
    if not isinstance(summary.get("pending_by_age"), Mapping):
        return _render(data)
    pending, parked, unnotified = (summary.get(name) or 0 for name in ("pending", "parked", "unnotified"))
    oldest = summary.get("oldest_pending")
    verdict = f"<b>{_value(pending)}</b> pending" if pending else "Nothing is pending"
    verdict += f", the oldest since {_value(oldest)}" if pending and oldest else ""
    parts = [_render(rest)] if rest else []
    parts.append(f'<div style="font-size:1.15em;margin:.2em 0 .4em">{verdict}</div>')
    looks = [
        (parked, "parked: redrive or settle them (.parked())"),
        (unnotified, "executions without a notification (.executions_without_notification())"),
    ]
    for count, what in looks:
        if count:
            parts.append(f'<div><span style="{_ALARM}">{_value(count)} {escape(what)}</span></div>')
    if pending:
        ages = [(_AGES.get(age, age), count) for age, count in summary["pending_by_age"].items()]
        by_status = summary.get("pending_by_status") or {}
        parts.append(_bars("pending for", ages) + _bars("status", list(by_status.items())))
    parts.append(_facts(_outlook(summary)))
    tables = [
        {
            "table": name,
            **{key: counts.get(key) for key in ("rows", "pending", "acknowledged", "other_flags", "parked")},
        }
        for name, key in (("autosys_job_log", "executions"), ("job_notifications", "notifications"))
        if isinstance(counts := summary.get(key), Mapping)
    ]
    if tables:
        parts.append(f'<div style="margin:.5em 0 0">{_table(tables)}</div>')
    return "".join(parts)


def _outlook(summary: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {} if "root" not in summary else {"root": summary["root"]}
    rate = summary.get("success_rate")
    # Rounded down: only if all succeeded is it 100 %.
    facts["successful tries"] = "none yet" if rate is None else f"{math.floor(1000 * rate) / 10} %"
    facts["attempts"] = ", ".join(f"{count:,} {outcome}" for outcome, count in (summary.get("attempts") or {}).items())
    facts["counted since"] = summary.get("since")
    if summary.get("retrying"):
        facts["next retry"] = summary.get("next_retry") or "with the next delivery"
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _bars(title: str, rows: Sequence[tuple[Any, int]]) -> str:
    """Returns a bar for each count. The number beside it is for screen readers too."""
    largest = max((count for _, count in rows), default=0)
    cell = "padding:.1em .9em .1em 0;vertical-align:middle"
    right = f"text-align:right;font-variant-numeric:tabular-nums;{cell}"
    empty = "width:12em;height:.85em;background:rgba(128,128,128,.2);border-radius:2px"
    bar = f'<div aria-hidden="true" style="{empty}">'
    lines = ""
    for name, count in rows:
        # A visible minimum width distinguishes "a few" from "none".
        width = max(100 * count / largest, 0.8) if count else 0
        lines += (
            f'<tr><th scope="row" style="text-align:left;font-weight:normal;{cell}">{_value(name)}</th>'
            f'<td style="{cell}">{bar}<div style="width:{width:.1f}%;height:100%;background:#3b7ddd;border-radius:2px">'
            f'</div></div></td><td style="{right}">{count:,}</td></tr>'
        )
    return (
        '<table style="margin:.2em 1.5em .4em 0;border-collapse:collapse;background:transparent;color:inherit;'
        'display:inline-table;vertical-align:top">'
        f'<caption style="text-align:left;opacity:.75;color:inherit">{escape(title)}</caption>{lines}</table>'
    )


def _comparison(data: Mapping[str, Any]) -> str:
    """Returns the verdict, then one line per arm. `.jobs()` has the jobs."""
    analysis = data.get("analysis")
    if isinstance(analysis, Mapping) and isinstance(data.get("arms"), Sequence):
        return _analysis(data, analysis)
    comparison = data.get("comparison") or {}
    saved, gain = comparison.get("time_saved"), comparison.get("efficiency_gain")
    parts = []
    if isinstance(saved, int | float) and isinstance(gain, int | float):
        verdict = "saves" if saved >= 0 else "costs"
        parts.append(
            f'<div style="font-size:1.15em">Asynchronous execution {verdict} <b>{abs(saved):,.1f} s</b> '
            f"({abs(gain):.1f} % of the sequential time)</div>"
        )
    arms = []
    for name, arm in data.items():
        if name.endswith("_execution") and isinstance(arm, Mapping):
            hosts = {_host(job) for job in arm.get("jobs", ())} - {None}
            arms.append(
                {
                    "arm": name.removesuffix("_execution"),
                    "context": arm.get("context_name"),
                    "total_duration": arm.get("total_duration"),
                    "successful_jobs": arm.get("successful_jobs"),
                    "failed_jobs": arm.get("failed_jobs"),
                    "hosts": len(hosts),
                }
            )
    if arms:
        parts.append(_table(arms))
    rest = {name: data[name] for name in ("warnings", "path", "metadata") if data.get(name)}
    return "".join(parts) + (_render(rest) if rest else "")


def _analysis(data: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    """Returns the verdict, a line per arm, and the warnings. The report has the charts."""
    verdict = analysis.get("verdict") or {}
    parts = [f'<div style="font-size:1.1em;max-width:60em;margin:.2em 0 .6em">{_value(verdict.get("text"))}</div>']
    lines = []
    for arm, figures in zip(data["arms"], analysis.get("arms") or (), strict=False):

        def of(key: str, part: str, figures: Mapping[str, Any] = figures) -> Any:
            return (figures.get(key) or {}).get(part)

        lines.append(
            {
                "arm": arm.get("name"),
                "context": arm.get("context"),
                "rounds": figures.get("rounds"),
                "jobs": figures.get("jobs"),
                "failed_jobs": figures.get("failed"),
                "makespan s": of("makespan_s", "mean"),
                "pending median s": of("pending_s", "p50"),
                "starting median s": of("starting_s", "p50"),
                "running median s": of("running_s", "p50"),
                "hosts": len(figures.get("hosts") or ()),
            }
        )
    parts.append(_table(lines))
    warnings = [warning for warning in data.get("warnings") or () if isinstance(warning, Mapping)]
    if warnings:
        items = "".join(
            f"<li><b>{_value(warning.get('code'))}</b> {_value(warning.get('text'))}</li>" for warning in warnings
        )
        parts.append(f'<ul style="max-width:60em;margin:.6em 0 0;padding-left:1.2em">{items}</ul>')
    parts.append(
        '<div style="opacity:.75;margin:.6em 0 0"><code>jobrota.report.show(result)</code> shows the charts.</div>'
    )
    path = data.get("path")
    return "".join(parts) + (_render({"path": path}) if path else "")


def _host(job: Mapping[str, Any]) -> Any:
    metrics = job.get("metrics") or {}
    return (metrics.get("orchestrator_data") or {}).get("execution_host")


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td style="text-align:left;opacity:.7;padding:.1em 1.2em .1em 0">{_label(name)}</td>'
        f'<td style="text-align:left">{_told(name, value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table style="margin:0;border-collapse:collapse">{rows}</table>'


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    largest = {
        name: max((row[name] for row in rows if isinstance(row.get(name), int | float)), default=0) for name in names
    }
    head = "".join(f'<th style="text-align:left;padding:.15em .9em .15em 0">{_label(name)}</th>' for name in names)
    body = ""
    for row in rows:
        cells = ""
        for name in names:
            value = row.get(name)
            bar = ""
            if name in _BARS and isinstance(value, int | float) and largest[name]:
                width = round(80 * value / largest[name])
                bar = (
                    f'<span style="display:inline-block;height:.6em;width:{width}px;background:#4c8bf5;'
                    'border-radius:2px;margin-right:.4em"></span>'
                )
            cells += f'<td style="text-align:left;padding:.1em .9em .1em 0">{bar}{_told(name, value)}</td>'
        body += f"<tr>{cells}</tr>"
    return f'<table style="margin:0;border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def _told(name: str, value: Any) -> str:
    """Returns a value. A count of failures is highlighted."""
    alarm = name in _BAD and isinstance(value, int) and value
    return f'<span style="{_ALARM}">{_value(value)}</span>' if alarm else _value(value)


def _label(name: Any) -> str:
    return escape(str(name).replace("_", " "))


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return escape(value.isoformat(sep=" ", timespec="seconds"))
    return escape(str(value))
