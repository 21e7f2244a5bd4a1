"""What every chart of a report is, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from jobrota.report.rows import Comparison, Row

__all__ = ["Chart", "finish", "first_round", "inline", "seconds"]

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


def first_round(comparison: Comparison, arm: str) -> tuple[int, list[Row]]:
    """The first round of an arm that was done to its end: its number and its jobs."""
    rows = [row for row in comparison.rows if row["arm"] == arm]
    whole = [entry["round"] for entry in _entry(comparison, arm)["rounds"] if not entry.get("interrupted")]
    number = min(whole or [row["round"] for row in rows], default=1)
    return number, [row for row in rows if row["round"] == number]


def _entry(comparison: Comparison, arm: str) -> Any:
    return next(entry for entry in comparison.arms if entry["name"] == arm)
