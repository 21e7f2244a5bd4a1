"""Images of charts, drawn without a browser."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from jobrota.errors import InvalidInputError
from jobrota.report.chart import Chart
from jobrota.report.theme import theme

__all__ = ["write"]

WIDTH = 900


def write(charts: Sequence[Chart], folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes an image of each chart, `<chart>.png` and `<chart>.svg`, in light colours.

    Args:
        charts: The charts.
        folder: Where; it is made if needed.
        formats: `png` and `svg`, or one of them.

    Returns:
        The files.

    Raises:
        InvalidInputError: A format is neither.
    """
    unknown = [name for name in formats if name not in ("png", "svg")]
    if unknown:
        raise InvalidInputError(f"images cannot be {', '.join(unknown)}: formats are png and svg")
    folder.mkdir(parents=True, exist_ok=True)
    config = theme(dark=False) | {"background": "white", "font": "sans-serif"}
    files = []
    for chart in charts:
        spec = sized(chart.spec, WIDTH) | {"title": chart.title, "padding": 12}
        if "svg" in formats:
            files.append(folder / f"{chart.key}.svg")
            files[-1].write_text(vl_convert.vegalite_to_svg(spec, config=config), encoding="utf-8")
        if "png" in formats:
            files.append(folder / f"{chart.key}.png")
            files[-1].write_bytes(vl_convert.vegalite_to_png(spec, config=config, scale=2))
    return files


def sized(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """The chart for a given width: Vega-Lite fits single views to their place, and not those in rows."""
    spec = copy.deepcopy(spec)
    inner = spec.get("spec", spec)
    inner["width"] = width
    return spec
