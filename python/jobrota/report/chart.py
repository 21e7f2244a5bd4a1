"""A chart of a report, and helpers that several charts use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from jobrota.report.rows import Comparison

__all__ = ["CLAIMABLE", "NOT_KNOWN", "Chart", "finish", "named", "of_a_round", "seconds", "unknown"]

NOT_KNOWN = "Not known: the orchestrator had no entry for any of these jobs."

CLAIMABLE = 5
"""The least number of rounds for a claim. With fewer rounds, no interval is shown."""

# Of vl-convert's Vega-Lite, which draws the charts. Altair 5 names an older one, and the page would warn.
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

SVG_MARKS = 6000
"""The most marks of an SVG. More marks are drawn on a canvas, because a browser needs seconds for as many elements."""


@dataclass
class Chart:
    """One chart of the page."""

    key: str
    title: str
    finding: str
    spec: dict[str, Any] | None
    """None if there is nothing to draw. The finding says why."""
    columns: list[str]
    rows: list[list[Any]]
    marks: int
    findings: dict[int, str] = field(default_factory=dict)
    """The finding of each round, for a chart that shows one round at a time."""
    of_jobs: bool = False
    """Whether each row is a job, so that the table of all jobs has it, too."""

    @property
    def renderer(self) -> str:
        """`svg`, or `canvas` for very many marks."""
        return "svg" if self.marks <= SVG_MARKS else "canvas"


def named(name: str = "rows") -> Any:
    """Data that `finish` adds to the chart. Altair itself would validate each row."""
    return alt.NamedData(name)


def finish(chart: Any, datasets: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the specification with its data and without a theme."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)
    return spec | {"$schema": _SCHEMA, "datasets": dict(datasets)}


def seconds(value: float | None) -> float | None:
    """Returns `value` rounded to milliseconds."""
    return None if value is None else round(value, 3)


def of_a_round(comparison: Comparison, spec: dict[str, Any]) -> dict[str, Any]:
    """Limits the chart to the round in its parameter `round`, which readers of the page choose."""
    if len(comparison.rounds) < 2:
        return spec
    return spec | {
        "params": [*spec.get("params", ()), {"name": "round", "value": comparison.shown_round}],
        "transform": [{"filter": "datum.round == round"}, *spec.get("transform", ())],
    }


def unknown(key: str, title: str) -> Chart:
    """Returns a chart without a picture, for a run without orchestrator entries."""
    return Chart(key, title, NOT_KNOWN, None, [], [], 0)
