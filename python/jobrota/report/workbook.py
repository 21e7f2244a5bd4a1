"""The result of a comparison as an Excel workbook: one sheet for each table, and two charts.

Needs XlsxWriter, of the extra `report`.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrota.errors import MissingPackageError, StorageError, UnsupportedError
from jobrota.files import replace
from jobrota.report.extra import HOW_TO_INSTALL
from jobrota.report.rows import DIFFERENCES

if TYPE_CHECKING:
    from arro3.core import Table

    from jobrota._native import ComparisonResult

__all__ = ["require", "write"]

LONGEST_TEXT = 32_000
"""UTF-16 code units of a cell. Excel's own limit is 32,767."""
MOST_ROWS = 1_000_000
"""Rows of a sheet. Excel's own limit is 1,048,576."""


def require() -> None:
    """Checks that the extra is installed.

    Raises:
        MissingPackageError: XlsxWriter is missing.
    """
    if find_spec("xlsxwriter") is None:
        raise MissingPackageError(f"an Excel workbook needs XlsxWriter: {HOW_TO_INSTALL}")


def write(result: ComparisonResult, analysis: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes a workbook in place of the file that exists. Text is written as text, never as a formula or a link.

    Args:
        result: The tables and the warnings.
        analysis: The analysis of the result.
        path: The file. Its folder must exist.

    Returns:
        The path.

    Raises:
        StorageError: The file cannot be written.
        MissingPackageError: XlsxWriter is missing.
        UnsupportedError: A table has more rows than a sheet.
    """
    require()
    from xlsxwriter import Workbook

    content = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with Workbook(content, options) as workbook:
        book = _Book(workbook)
        book.summary(analysis)
        book.sheet("Warnings", ["code", "text"], [[warning.code, warning.text] for warning in result.warnings])
        book.table("Arms", result.arms())
        book.table("Phases", result.phases())
        book.table("Hosts", result.hosts())
        book.table("Jobs", result.jobs())
        book.concurrency(analysis["arms"])
    target = Path(path)
    try:
        replace(target, content.getvalue(), make_folders=False)
    except OSError as error:
        raise StorageError(
            f"the workbook cannot be written to {target} ({error.strerror or error}): name a file in a folder that "
            "exists and can be written to"
        ) from error
    return target


class _Book:
    """A workbook with its cell formats."""

    def __init__(self, workbook: Any) -> None:
        self.workbook = workbook
        self.head = workbook.add_format({"bold": True, "bg_color": "#DDE6F0", "valign": "top", "text_wrap": True})
        self.decimal = workbook.add_format({"num_format": "#,##0.###"})
        self.integer = workbook.add_format({"num_format": "#,##0"})
        self.wrapped = workbook.add_format({"text_wrap": True, "valign": "top"})
        self.verdict = workbook.add_format({"bold": True, "font_size": 13, "text_wrap": True, "valign": "top"})

    def summary(self, analysis: Mapping[str, Any]) -> None:
        """The verdict, every pair of arms, and a chart of the makespans."""
        sheet = self.workbook.add_worksheet("Summary")
        sheet.merge_range(0, 0, 0, 8, _cut(analysis["verdict"]["text"]), self.verdict)
        # As high as the verdict's text needs, in points.
        sheet.set_row(0, 76)
        sheet.set_column(0, 2, 24)
        names = ["treatment", "baseline", "what differs", "ratio", "low", "high", "rounds", "claimed", "percent saved"]
        self.heads(sheet, 2, 0, names)
        row = 3
        for gain in analysis["comparisons"]:
            cells = [gain["treatment"], gain["baseline"], DIFFERENCES[gain["kind"]]]
            cells += [gain.get(name) for name in ("ratio", "low", "high", "rounds")]
            cells += [bool(gain.get("claimed")), gain["percent_saved"]]
            self.cells(sheet, row, 0, cells)
            row += 1
        first = row + 2
        self.heads(sheet, first, 0, ["arm", "makespan, s"])
        last = first
        for arm in analysis["arms"]:
            last += 1
            makespan = arm["makespan_s"]
            self.cells(sheet, last, 0, [arm["arm"], makespan["mean"] if makespan else None])
        if last > first:
            chart = self.workbook.add_chart({"type": "bar"})
            names_range, values_range = ["Summary", first + 1, 0, last, 0], ["Summary", first + 1, 1, last, 1]
            chart.add_series({"categories": names_range, "values": values_range})
            chart.set_title({"name": "Makespan, seconds of the server"})
            chart.set_legend({"none": True})
            sheet.insert_chart(first, 3, chart)

    def table(self, name: str, table: Table) -> None:
        """A sheet with the columns and rows of an Arrow table."""
        columns = [table[column].to_pylist() for column in table.column_names]
        self.sheet(name, table.column_names, zip(*columns, strict=True))

    def sheet(self, name: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A sheet with a frozen header and a filter."""
        sheet = self.workbook.add_worksheet(name)
        self.heads(sheet, 0, 0, heads)
        last = 0
        for cells in rows:
            last += 1
            if last > MOST_ROWS:
                raise UnsupportedError(f"the sheet {name} would have more than {MOST_ROWS:,} rows, which Excel refuses")
            self.cells(sheet, last, 0, cells)
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, max(last, 1), len(heads) - 1)
        if name == "Warnings":
            sheet.set_column(0, 0, 26)
            sheet.set_column(1, 1, 120, self.wrapped)
        else:
            sheet.autofit()

    def concurrency(self, arms: Sequence[Mapping[str, Any]]) -> None:
        """Jobs on hosts over time, of each arm in columns of its own, and a chart of the first round."""
        columns = 5
        sheet = self.workbook.add_worksheet("Concurrency")
        chart = self.workbook.add_chart({"type": "scatter", "subtype": "straight"})
        for number, arm in enumerate(arms):
            column = number * columns
            self.heads(sheet, 0, column, ["round", "second", f"{arm['arm']}: jobs on hosts", "hosts held"])
            if not arm["concurrency"]:
                continue
            shown = arm["concurrency"][0]["round"]
            row, last = 1, 0
            for row, cells in enumerate(_steps(arm["concurrency"]), start=1):
                if row > MOST_ROWS:
                    break
                self.cells(sheet, row, column, cells)
                if cells[0] == shown:
                    last = row
            chart.add_series(
                {
                    # A reference to a cell: Excel would read a name that looks like a range as a range.
                    "name": ["Concurrency", 0, column + 2],
                    "categories": ["Concurrency", 1, column + 1, last, column + 1],
                    "values": ["Concurrency", 1, column + 2, last, column + 2],
                }
            )
        sheet.freeze_panes(1, 0)
        sheet.autofit()
        if chart.series:
            chart.set_title({"name": "Jobs on hosts, first round"})
            chart.set_x_axis({"name": "seconds since the arm's first start"})
            chart.set_size({"width": 900, "height": 420})
            sheet.insert_chart(1, len(arms) * columns, chart)

    def heads(self, sheet: Any, row: int, column: int, names: Sequence[str]) -> None:
        """The names of columns."""
        for at, name in enumerate(names, start=column):
            sheet.write_string(row, at, _cut(name), self.head)

    def cells(self, sheet: Any, row: int, column: int, values: Sequence[Any]) -> None:
        """The cells of a row; a cell without a value, or with a number that is not finite, stays empty."""
        for at, value in enumerate(values, start=column):
            if isinstance(value, bool):
                sheet.write_string(row, at, "yes" if value else "no")
            elif isinstance(value, str):
                sheet.write_string(row, at, _cut(value))
            elif value is not None and math.isfinite(value):
                sheet.write_number(row, at, value, self.integer if value == int(value) else self.decimal)


def _steps(moments: Iterable[Mapping[str, Any]]) -> Iterable[list[Any]]:
    """Two points for each change, so that a chart draws steps; each round begins with no job at its own second 0."""
    round_, start, jobs, hosts = None, 0.0, 0, 0
    for moment in moments:
        if moment["round"] != round_:
            round_, start, jobs, hosts = moment["round"], moment["at_s"], 0, 0
        second = moment["at_s"] - start
        yield [round_, second, jobs, hosts]
        jobs, hosts = moment["jobs"], moment["hosts"]
        yield [round_, second, jobs, hosts]


def _cut(text: str) -> str:
    """As much of `text` as a cell holds."""
    if len(text) * 2 <= LONGEST_TEXT:
        return text
    return text.encode("utf-16-le")[: LONGEST_TEXT * 2].decode("utf-16-le", errors="ignore")
