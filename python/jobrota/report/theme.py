"""The colours of charts in the light and the dark theme.

Phases are ordinal and use the range `ordinal`. Arms are nominal and use the range `category`. One chart therefore works
with both themes.
"""

from __future__ import annotations

from typing import Any

__all__ = ["theme"]

# Close to the colours of Okabe and Ito, which work for every colour vision; lighter on a dark background. Each has a
# contrast of at least 3:1 to its background, and successive phases differ in luminance, too.
_LIGHT = {
    "category": ["#0072b2", "#c04f00", "#00795a", "#a34d7c", "#8a6d00", "#444444"],
    "ordinal": ["#8b949e", "#b35900", "#005a8c", "#7a7a7a"],
    "text": "#24292f",
    "grid": "#d8dee4",
    "slope": "#7d8590",
    "band": "#d8dee4",
    "failed": "#b3261e",
}
_DARK = {
    "category": ["#56b4e9", "#f0905a", "#3ecf9f", "#e59ac4", "#f0e442", "#cccccc"],
    "ordinal": ["#5e6873", "#ffc04d", "#4a9ae6", "#a0a0a0"],
    "text": "#e6edf3",
    "grid": "#3d444d",
    "slope": "#768390",
    "band": "#3d444d",
    "failed": "#ff8f85",
}


def theme(dark: bool) -> dict[str, Any]:
    """Returns the Vega configuration of the light or the dark theme."""
    colours: dict[str, Any] = _DARK if dark else _LIGHT
    text, grid = colours["text"], colours["grid"]
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": "transparent"},
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
        },
        "axisY": {"labelLimit": 220},
        "legend": {"labelColor": text, "titleColor": text, "labelFontSize": 12, "orient": "top", "columns": 4},
        "header": {"labelColor": text, "titleColor": text, "labelFontSize": 12, "labelFontWeight": "bold"},
        "title": {"color": text, "subtitleColor": text, "subtitleFontSize": 12, "subtitlePadding": 6},
        "range": {"category": colours["category"], "ordinal": colours["ordinal"]},
        "rule": {"color": text},
        # Marks use these as `{"expr": "ink"}`, because a style does not replace the default colour of a mark.
        "params": [
            {"name": "ink", "value": text},
            *({"name": name, "value": colours[name]} for name in ("slope", "band", "failed")),
        ],
        "boxplot": {"median": {"color": text}},
    }
