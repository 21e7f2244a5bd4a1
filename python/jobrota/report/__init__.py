"""The report of a comparison: one HTML file that works offline, images of its charts, and the same page in a notebook.

Needs the packages of the extra `report` (Altair, Jinja2 and vl-convert; no browser and no network).
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from jobrota.errors import InvalidInputError, MissingPackageError, StorageError
from jobrota.files import replace
from jobrota.report.extra import HOW_TO_INSTALL
from jobrota.report.rows import Comparison, read
from jobrota.twins import twin

if TYPE_CHECKING:
    from jobrota._native import ComparisonResult

__all__ = ["ReportView", "require", "show", "show_async", "write", "write_async"]

FORMATS = ("png", "svg")

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _checked(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """Returns `call` with an error for unknown keywords that names the known ones."""
    known = inspect.signature(call).parameters
    keywords = [name for name, parameter in known.items() if parameter.kind is parameter.KEYWORD_ONLY]

    @functools.wraps(call)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if unknown := [name for name in kwargs if name not in known]:
            raise TypeError(f"unknown keyword {', '.join(unknown)}: known are {', '.join(keywords)}")
        return call(*args, **kwargs)

    return checked


@_checked
def write(
    result: ComparisonResult | Mapping[str, Any] | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    images: str | os.PathLike[str] | None = None,
    formats: str | Sequence[str] = FORMATS,
) -> Path:
    """Writes the report of a comparison as one HTML file.

    Args:
        result: A `ComparisonResult`, its `to_dict()`, or the path of a result JSON.
        path: The HTML file. By default it is beside the result JSON. Missing folders are made.
        title: The title of the page.
        images: A folder for images of the charts.
        formats: The formats of the images: `"png"`, `"svg"`, or both.

    Returns:
        The path of the HTML file.

    Raises:
        InvalidInputError: The result has no jobs, the path is missing or that of the result itself, or a format is
            unknown.
        NotFoundError: The result file does not exist.
        StorageError: The file or an image cannot be written.
        MissingPackageError: The packages of the extra `report` are not installed.

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
    require()
    formats = _formats(formats)
    comparison = read(result, title)
    target = Path(path) if path is not None else _beside(comparison)
    _check_target(comparison, target)
    from jobrota.report import charts, page
    from jobrota.report import images as drawn

    made = charts.draw(comparison)
    text = page.render(comparison, made)
    try:
        replace(target, text)
    except OSError as error:
        raise StorageError(
            f"the report cannot be written to {target} ({error.strerror or error}): name another file"
        ) from error
    if images is not None:
        try:
            drawn.write(made, Path(images), formats)
        except OSError as error:
            raise StorageError(
                f"images cannot be written to {images} ({error.strerror or error}): name another folder"
            ) from error
    return target


@_checked
def show(result: ComparisonResult | Mapping[str, Any] | str | os.PathLike[str], *, height: int = 2400) -> ReportView:
    """Shows the report in a notebook: the same page, in a frame.

    Args:
        result: The same as for `write`.
        height: The height of the frame in pixels, until the charts are drawn. If the notebook allows it, the frame then
            gets the height of the page.

    Returns:
        A view that Databricks and Jupyter display when it is the last value of a cell.

    Raises:
        InvalidInputError: The result has no jobs.
        MissingPackageError: The packages of the extra `report` are not installed.
    """
    require()
    from jobrota.report import charts, page

    comparison = read(result, None)
    return ReportView(page.render(comparison, charts.draw(comparison)), height)


write_async = twin(write)
show_async = twin(show)


class ReportView:
    """A report for a notebook."""

    def __init__(self, html: str, height: int) -> None:
        """Takes the HTML of the page and the height of the frame."""
        self.html = html
        self.height = height

    def _repr_html_(self) -> str:
        from jobrota.report import page

        return page.frame(self.html, self.height)

    def __repr__(self) -> str:
        return f"ReportView({len(self.html):,} characters)"


def require() -> None:
    """Checks that the extra is installed.

    Raises:
        MissingPackageError: The packages of the extra `report` are not installed.
    """
    if any(find_spec(name) is None for name in ("altair", "jinja2", "vl_convert")):
        raise MissingPackageError(f"reports need Altair, Jinja2 and vl-convert: {HOW_TO_INSTALL}")


def _formats(formats: str | Sequence[str]) -> list[str]:
    names = [formats] if isinstance(formats, str) else list(formats)
    unknown = [str(name) for name in names if name not in FORMATS]
    if unknown or not names:
        raise InvalidInputError(f"images cannot be {', '.join(unknown) or 'nothing'}: formats are png and svg")
    return names


def _beside(comparison: Comparison) -> Path:
    if comparison.path is None:
        raise InvalidInputError("the result is not in a file, so say where the report goes (path)")
    return comparison.path.with_suffix(".html")


def _check_target(comparison: Comparison, target: Path) -> None:
    """Refuses to replace the result with its report."""
    source = comparison.path
    if source is not None and (source == target or (target.exists() and source.exists() and target.samefile(source))):
        raise InvalidInputError(f"{target} is the result itself: say where the report goes (path, or -o FILE)")
