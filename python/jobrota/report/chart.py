"""What every chart of a report is, and what several of them need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from jobrota.report.rows import Comparison

__all__ = ["CLAIMABLE", "NOT_KNOWN", "Chart", "finish", "named", "of_a_round", "seconds", "unknown"]

NOT_KNOWN = "Not known: the orchestrator had no entry for any of these jobs."

CLAIMABLE = 5
"""Fewer rounds than these claim nothing, and their interval is not shown."""

SVG_MARKS = 6000
"""More marks than these are drawn on a canvas: a browser takes seconds for so many elements."""


@dataclass
class Chart:
    """One chart of the page."""

    key: str
    title: str
    finding: str
    spec: dict[str, Any] | None
    """None where there is nothing to draw, and the finding says why."""
    columns: list[str]
    rows: list[list[Any]]
    marks: int
    findings: dict[int, str] = field(default_factory=dict)
    """Of a chart that shows one round at a time: its finding by round."""
    of_jobs: bool = False
    """Whether each row is a job, which the table of all jobs has as well."""

    @property
    def renderer(self) -> str:
        """`svg`, or `canvas` for very many marks."""
        return "svg" if self.marks <= SVG_MARKS else "canvas"


def named(name: str = "rows") -> Any:
    """Data that `finish` puts into the chart: Altair would check each row of it against Vega-Lite's schema."""
    return alt.NamedData(name)


def finish(chart: Any, datasets: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The specification with its data, without a theme of its own."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)
    return spec | {"datasets": dict(datasets)}


def seconds(value: float | None) -> float | None:
    """To the millisecond."""
    return None if value is None else round(value, 3)


def of_a_round(comparison: Comparison, spec: dict[str, Any]) -> dict[str, Any]:
    """The chart of the round that its parameter `round` says, which the page lets people choose."""
    if len(comparison.rounds) < 2:
        return spec
    return spec | {
        "params": [*spec.get("params", ()), {"name": "round", "value": comparison.shown_round}],
        "transform": [{"filter": "datum.round == round"}, *spec.get("transform", ())],
    }


def unknown(key: str, title: str) -> Chart:
    """The place of a chart that needs the orchestrator's account where there is none."""
    return Chart(key, title, NOT_KNOWN, None, [], [], 0)
