"""Images of charts, made without a browser."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from jobrota.report.chart import Chart
from jobrota.report.theme import theme

__all__ = ["write"]

WIDTH = 900


def write(charts: Sequence[Chart], folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes an image of each chart, `<chart>.png` and `<chart>.svg`, in light colours.

    Args:
        charts: The charts.
        folder: The folder. It is made if it is missing.
        formats: `png`, `svg`, or both.

    Returns:
        The files.

    Raises:
        OSError: An image cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = theme(dark=False) | {"background": "white", "font": "sans-serif"}
    files = []
    for chart in charts:
        if chart.spec is None:
            continue
        title = {"text": chart.title, "subtitle": textwrap.wrap(_finding(chart), 110), "anchor": "start"}
        spec = sized(chart.spec, WIDTH) | {"title": title, "padding": 12}
        if "svg" in formats:
            files.append(folder / f"{chart.key}.svg")
            files[-1].write_text(vl_convert.vegalite_to_svg(spec, config=config), encoding="utf-8")
        if "png" in formats:
            files.append(folder / f"{chart.key}.png")
            files[-1].write_bytes(vl_convert.vegalite_to_png(spec, config=config, scale=2))
    return files


def _finding(chart: Chart) -> str:
    """Returns the finding, with the round if the chart shows one of several."""
    if len(chart.findings) < 2:
        return chart.finding
    shown = next((param["value"] for param in (chart.spec or {}).get("params", ()) if param["name"] == "round"), None)
    return chart.finding if shown is None else f"Round {shown}. {chart.finding}"


def sized(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """Sets the width of the chart. Vega-Lite adapts single views to their container, but not views in rows."""
    spec = copy.deepcopy(spec)
    inner = spec.get("spec", spec)
    inner["width"] = width
    return spec
