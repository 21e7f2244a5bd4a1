"""The HTML of jobrota's objects in a notebook.

Values come from outside, such as job names. `jobrota.markup` escapes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jobrota.markup import Markup, element, join

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
    "migration": "Migration",
    "comparison_result": "SAS Viya comparison",
    "updater": "AutoSys updater",
    "runner": "SAS Viya comparison runner",
    "sandbox": "Sandbox (local stand-ins)",
    "table": "Table",
}
_BAD = {
    "failed",
    "unknown",
    "parked",
    "failed_jobs",
    "expired",
    "bad",
    "bad_records",
    "refused",
    "stuck",
    "missing",
    "extra",
}
# White on red: no single shade of red text is readable on both light and dark backgrounds.
_ALARM = "background:#b3261e;color:#fff;font-weight:600;border-radius:3px;padding:.05em .4em"
_BOX = "display:inline-block;border:1px solid rgba(128,128,128,.4);border-radius:6px;padding:.6em .9em;margin:.2em 0"
_BARS = {"share", "selections"}
_AGES = {"under_15m": "under 15 min", "15m_to_1h": "15 min–1 h", "1h_to_24h": "1–24 h", "over_24h": "older"}


def repr_html(obj_kind: str, data: Mapping[str, Any] | Sequence[Any]) -> str:
    """HTML of an object: a titled box with its facts, and a table for each list of rows among them.

    Args:
        obj_kind: Which object: selection, inventory, ledger, …
        data: Its facts by name, or rows.

    >>> repr_html("selection", {"vm": "<b>"}).count("&lt;b&gt;")
    1
    """
    title = _TITLES.get(obj_kind, obj_kind.replace("_", " "))
    if obj_kind == "selector" and isinstance(data, Mapping):
        rest = {name: value for name, value in data.items() if name != "distribution"}
        body = join([_render(rest), _turns(data.get("distribution", ()))])
    elif obj_kind == "comparison_result" and isinstance(data, Mapping):
        body = _comparison(data)
    elif obj_kind in ("ledger", "ledger_summary", "updater") and isinstance(data, Mapping):
        body = _deliveries(data)
    else:
        body = _render(data)
    return element("div", element("div", title, style="font-weight:600;margin-bottom:.4em"), body, style=_BOX)


def _render(data: Any) -> Markup:
    if isinstance(data, Mapping):
        facts = {name: value for name, value in data.items() if not _is_nested(value)}
        parts = [_facts(facts)] if facts else []
        for name, value in data.items():
            if _is_nested(value):
                parts += [element("div", _label(name), style="opacity:.75;margin:.5em 0 .2em"), _render(value)]
        return join(parts)
    rows = list(data)
    if not rows:
        return element("div", "none", style="opacity:.6")
    if all(isinstance(row, Mapping) for row in rows):
        return _table(rows)
    lines: list[object] = [_value(row) for row in rows]
    return element("div", *[part for line in lines for part in (Markup("<br>"), line)][1:])


def _turns(rows: Sequence[Sequence[Any]]) -> Markup:
    """A bar for each VM with its selections, its share and its last selection. Screen readers read a table.

    The colour of the bars has a contrast of at least 3:1 to white and to black. Everything else uses the notebook's own
    colours, so light and dark themes both work.
    """
    if not rows:
        return Markup()
    counts = [int(row[1]) for row in rows]
    total, largest = sum(counts), max(*counts, 1)
    cell = "padding:.15em .9em .15em 0;vertical-align:middle"
    number = f"text-align:right;font-variant-numeric:tabular-nums;{cell}"
    columns = (("VM", "left"), ("turns", "left"), ("", "right"), ("share", "right"), ("last turn", "left"))
    lines = [
        element(
            "tr",
            *(
                element("th", text, scope="col", style=f"text-align:{side};font-weight:normal;opacity:.75;{cell}")
                for text, side in columns
            ),
        )
    ]
    for (vm, _, share, *last), count in zip(rows, counts, strict=True):
        at = _value(last[0]) if last and last[0] is not None else "never"
        cells = [
            element("th", _value(vm), scope="row", style=f"text-align:left;font-weight:600;{cell}"),
            element("td", _bar(count, largest, "16em"), style=cell),
            element("td", f"{count:,}", style=number),
            element("td", f"{100 * share:.1f} %", style=number),
            element("td", at, style=f"text-align:left;opacity:.75;{cell}"),
        ]
        lines.append(element("tr", *cells))
    turns = "1 turn" if total == 1 else f"{total:,} turns"
    vms = "1 VM" if len(rows) == 1 else f"{len(rows):,} VMs"
    caption = element(
        "caption", f"{turns} of {vms}", style="text-align:left;opacity:.75;padding:0 0 .3em;color:inherit"
    )
    style = "margin:.5em 0 0;border-collapse:collapse;background:transparent;color:inherit"
    return element("table", caption, *lines, style=style)


def _bar(count: int, largest: int, width: str) -> Markup:
    """A bar that screen readers skip."""
    # The smallest visible bar distinguishes "once" from "never".
    share = max(100 * count / largest, 0.8) if count else 0
    bar = element("div", style=f"width:{share:.1f}%;height:100%;background:#3b7ddd;border-radius:2px")
    track = f"width:{width};height:.85em;background:rgba(128,128,128,.2);border-radius:2px"
    return element("div", bar, aria_hidden="true", style=track)


def _deliveries(data: Mapping[str, Any]) -> Markup:
    """Pending rows, what needs an operator, and how deliveries go. Counts of the tables come last.

    The summary is `data` itself, or its item `summary` beside other facts.
    """
    nested = data.get("summary")
    summary = nested if isinstance(nested, Mapping) else data
    rest = {name: value for name, value in data.items() if name != "summary"} if summary is nested else {}
    if not isinstance(summary.get("pending_by_age"), Mapping):
        return _render(data)
    pending, parked, unnotified = (summary.get(name) or 0 for name in ("pending", "parked", "unnotified"))
    oldest = summary.get("oldest_pending")
    verdict: list[object] = [element("b", _value(pending)), " pending"] if pending else ["Nothing is pending"]
    verdict += [", the oldest since ", _value(oldest)] if pending and oldest else []
    parts = [_render(rest)] if rest else []
    parts.append(element("div", *verdict, style="font-size:1.15em;margin:.2em 0 .4em"))
    looks = [
        (parked, "parked: redrive or settle them (.parked())"),
        (unnotified, "executions without a notification (.executions_without_notification())"),
    ]
    for count, what in looks:
        if count:
            parts.append(element("div", element("span", f"{_value(count)} {what}", style=_ALARM)))
    if pending:
        ages = [(_AGES.get(age, age), count) for age, count in summary["pending_by_age"].items()]
        by_status = summary.get("pending_by_status") or {}
        parts += [_bars("pending for", ages), _bars("status", list(by_status.items()))]
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
        parts.append(element("div", _table(tables), style="margin:.5em 0 0"))
    return join(parts)


def _outlook(summary: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {} if "root" not in summary else {"root": summary["root"]}
    rate = summary.get("success_rate")
    # Rounded down: 100 % is all of them.
    facts["successful attempts"] = "none yet" if rate is None else f"{math.floor(1000 * rate) / 10} %"
    facts["attempts"] = ", ".join(f"{count:,} {outcome}" for outcome, count in (summary.get("attempts") or {}).items())
    facts["counted since"] = summary.get("since")
    if summary.get("retrying"):
        facts["next retry"] = summary.get("next_retry") or "with the next delivery"
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _bars(title: str, rows: Sequence[tuple[Any, int]]) -> Markup:
    """A bar for each count, with the number beside it."""
    largest = max((count for _, count in rows), default=0)
    cell = "padding:.1em .9em .1em 0;vertical-align:middle"
    lines = [
        element(
            "tr",
            element("th", _value(name), scope="row", style=f"text-align:left;font-weight:normal;{cell}"),
            element("td", _bar(count, largest, "12em"), style=cell),
            element("td", f"{count:,}", style=f"text-align:right;font-variant-numeric:tabular-nums;{cell}"),
        )
        for name, count in rows
    ]
    style = (
        "margin:.2em 1.5em .4em 0;border-collapse:collapse;background:transparent;color:inherit;display:inline-table;"
        "vertical-align:top"
    )
    caption = element("caption", title, style="text-align:left;opacity:.75;color:inherit")
    return element("table", caption, *lines, style=style)


def _comparison(data: Mapping[str, Any]) -> Markup:
    """A verdict first, then one line per arm. `.jobs()` has the jobs."""
    analysis = data.get("analysis")
    if isinstance(analysis, Mapping) and isinstance(data.get("arms"), Sequence):
        return _analysis(data, analysis)
    comparison = data.get("comparison") or {}
    saved, gain = comparison.get("time_saved"), comparison.get("efficiency_gain")
    parts = []
    if isinstance(saved, int | float) and isinstance(gain, int | float):
        verdict = "saves" if saved >= 0 else "costs"
        seconds = element("b", f"{abs(saved):,.1f} s")
        share = f" ({abs(gain):.1f} % of the sequential time)"
        parts.append(element("div", f"Asynchronous execution {verdict} ", seconds, share, style="font-size:1.15em"))
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
    return join([*parts, _render(rest)] if rest else parts)


def _analysis(data: Mapping[str, Any], analysis: Mapping[str, Any]) -> Markup:
    """The verdict, a line per arm, and the warnings. The report has the charts."""
    verdict = analysis.get("verdict") or {}
    style = "font-size:1.1em;max-width:60em;margin:.2em 0 .6em"
    parts = [element("div", _value(verdict.get("text")), style=style)]
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
        items = (
            element("li", element("b", _value(warning.get("code"))), " ", _value(warning.get("text")))
            for warning in warnings
        )
        parts.append(element("ul", *items, style="max-width:60em;margin:.6em 0 0;padding-left:1.2em"))
    code = element("code", "jobrota.report.show(result)")
    parts.append(element("div", code, " shows the charts.", style="opacity:.75;margin:.6em 0 0"))
    path = data.get("path")
    return join([*parts, _render({"path": path})] if path else parts)


def _host(job: Mapping[str, Any]) -> Any:
    metrics = job.get("metrics") or {}
    return (metrics.get("orchestrator_data") or {}).get("execution_host")


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def _facts(facts: Mapping[str, Any]) -> Markup:
    rows = (
        element(
            "tr",
            element("td", _label(name), style="text-align:left;opacity:.7;padding:.1em 1.2em .1em 0"),
            element("td", _alarming(name, value), style="text-align:left"),
        )
        for name, value in facts.items()
    )
    return element("table", *rows, style="margin:0;border-collapse:collapse")


def _table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    names = list(dict.fromkeys(name for row in rows for name in row))
    largest = {
        name: max((row[name] for row in rows if isinstance(row.get(name), int | float)), default=0) for name in names
    }
    head = (element("th", _label(name), style="text-align:left;padding:.15em .9em .15em 0") for name in names)
    lines = [element("tr", *head)]
    for row in rows:
        cells = []
        for name in names:
            value = row.get(name)
            shown: list[object] = [_alarming(name, value)]
            if name in _BARS and isinstance(value, int | float) and largest[name]:
                width = round(80 * value / largest[name])
                bar = f"display:inline-block;height:.6em;width:{width}px;background:#4c8bf5;"
                shown.insert(0, element("span", style=f"{bar}border-radius:2px;margin-right:.4em"))
            cells.append(element("td", *shown, style="text-align:left;padding:.1em .9em .1em 0"))
        lines.append(element("tr", *cells))
    return element("table", *lines, style="margin:0;border-collapse:collapse")


def _alarming(name: str, value: Any) -> str:
    """A value. A count of failures is highlighted."""
    alarm = name in _BAD and isinstance(value, int) and value
    return element("span", _value(value), style=_ALARM) if alarm else _value(value)


def _label(name: Any) -> str:
    return str(name).replace("_", " ")


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
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)
