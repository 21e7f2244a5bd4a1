"""A comparison as people look at it: one HTML file that works offline, images of its charts, the same in a notebook.

Needs the extra `report`: `pip install jobrota[report]` (Altair and vl-convert: neither a browser nor a network).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrota.errors import InvalidInputError
from jobrota.report.rows import Comparison, read

if TYPE_CHECKING:
    from jobrota._native import ComparisonResult

__all__ = ["ReportView", "show", "write"]

FORMATS = ("png", "svg")


def write(
    result: ComparisonResult | Mapping[str, Any] | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    images: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = FORMATS,
) -> Path:
    """Writes the report of a comparison as one HTML file.

    Args:
        result: A `ComparisonResult`, what its `to_dict()` gave, or the path of a result JSON.
        path: The HTML file; beside the result JSON if not given.
        title: The page's title.
        images: A folder for images of each chart as well.
        formats: Of the images: `"png"` and `"svg"`, or one of them.

    Returns:
        The path of the HTML file.

    Raises:
        InvalidInputError: The result has no jobs, or there is no path to write to.
        NotFoundError: There is no such result file.
        ImportError: The extra is missing: `pip install jobrota[report]`.

    Example:
        >>> import tempfile
        >>> from arro3.core import Array, DataType, Table
        >>> from jobrota import ComparisonResult
        >>> text, number = DataType.utf8(), DataType.float64()
        >>> result = ComparisonResult.from_table(Table.from_pydict({
        ...     "arm": Array(["one", "two"], text), "job": Array(["j", "j"], text),
        ...     "jes_created_s": Array([0, 10], number), "jes_end_s": Array([10, 15], number),
        ... }))
        >>> write(result, tempfile.mkdtemp() + "/report.html").suffix  # doctest: +SKIP
        '.html'
    """
    comparison = read(result, title)
    charts = _charts(comparison)
    from jobrota.report import images as drawn
    from jobrota.report import page

    target = Path(path) if path is not None else _beside(comparison)
    target.write_text(page.render(comparison, charts), encoding="utf-8")
    if images is not None:
        drawn.write(charts, Path(images), formats)
    return target


def show(result: ComparisonResult | Mapping[str, Any] | str | os.PathLike[str], *, height: int = 2400) -> ReportView:
    """The report in a notebook: the same page, in a frame of its own.

    Args:
        result: As `write` has it.
        height: Of the frame, pixels.

    Returns:
        What a notebook displays when it is the last value of a cell; Databricks and Jupyter both do.
    """
    from jobrota.report import page

    comparison = read(result, None)
    return ReportView(page.render(comparison, _charts(comparison)), height)


class ReportView:
    """A report for a notebook."""

    def __init__(self, html: str, height: int) -> None:
        """Of a whole page."""
        self.html = html
        self.height = height

    def _repr_html_(self) -> str:
        from html import escape

        # A frame keeps the notebook's styles out, and the page's scripts in.
        return (
            f'<iframe title="SAS Viya comparison" srcdoc="{escape(self.html)}" '
            f'style="width:100%;height:{int(self.height)}px;border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"ReportView({len(self.html):,} characters)"


def _charts(comparison: Comparison) -> Any:
    try:
        from jobrota.report import charts
    except ImportError as error:
        raise ImportError("reports need Altair and vl-convert: pip install jobrota[report]") from error
    return charts.draw(comparison)


def _beside(comparison: Comparison) -> Path:
    if comparison.path is None:
        raise InvalidInputError("the result was not written to a file, so say where the report goes (path)")
    return comparison.path.with_suffix(".html")
