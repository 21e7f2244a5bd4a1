"""What every chart of a report is, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt

from jobrota.report.rows import Comparison

__all__ = ["Chart", "finish", "inline", "of_a_round", "seconds"]

SVG_MARKS = 6000
"""More marks than these are drawn on a canvas: a browser takes seconds for so many elements."""


@dataclass
class Chart:
    """One chart of the page."""

    key: str
    title: str
    finding: str
    spec: dict[str, Any]
    columns: list[str]
    rows: list[list[Any]]
    marks: int
    findings: dict[int, str] = field(default_factory=dict)
    """Of a chart that shows one round at a time: its finding by round."""

    @property
    def renderer(self) -> str:
        """`svg`, or `canvas` for very many marks."""
        return "svg" if self.marks <= SVG_MARKS else "canvas"


def inline(values: list[dict[str, Any]]) -> Any:
    """Data that is part of the chart."""
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


def finish(chart: Any) -> dict[str, Any]:
    """The specification, without a theme of its own."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)
    return spec


def seconds(value: float | None) -> float | None:
    """To the millisecond."""
    return None if value is None else round(value, 3)


def of_a_round(comparison: Comparison, chart: Any) -> Any:
    """The chart of the round that its parameter `round` says, which the page lets people choose."""
    if len(comparison.rounds) < 2:
        return chart
    chosen = alt.param(name="round", value=comparison.shown_round)
    return chart.transform_filter("datum.round == round").add_params(chosen)
