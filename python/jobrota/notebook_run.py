"""Runs the file of a notebook in this process, for tests: what the test configured applies, and no kernel starts."""

from __future__ import annotations

import ast
import json
import linecache
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobrota.stand_ins import Dbutils, Display, NotebookExit

__all__ = ["NotebookRun", "run_notebook"]

# How Databricks stores a notebook as Python source.
_SOURCE_HEADER = "# Databricks notebook source"
_SOURCE_CELL = re.compile(r"^# COMMAND -+[ \t]*$", re.MULTILINE)
_SOURCE_MAGIC = re.compile(r"^# MAGIC ?", re.MULTILINE)

# A command ends with its line, unless a backslash continues it.
_LINE_MAGIC = re.compile(r"^(?P<indent>[ \t]*)(?P<command>[%!](?:.*\\\n)*.*)$", re.MULTILINE)
# The first line of a cell that is Python all the same.
_PYTHON_CELL = re.compile(r"^%(python|%time|%capture)\b.*")
# A cell whose first line is one of these is in another language, or is text.
_OTHER_LANGUAGE = re.compile(r"^(%%|%(md|md-sandbox|sql|sh|r|scala|fs)\b)")
_RUN = re.compile(r"^%run\s+(?P<quote>[\"']?)(?P<path>[^\"'$]+?)(?P=quote)\s*$")


@dataclass
class NotebookRun:
    """What a notebook did."""

    variables: dict[str, Any]
    """The global names of the notebook at its end."""
    shown: list[Any] = field(default_factory=list)
    """What it displayed: the arguments of `display`, and the last value of each cell."""
    text: str = ""
    """The same as text: the HTML of each value that has one, else its `repr`."""
    exit_value: str | None = None
    """The argument of `dbutils.notebook.exit`; None if the notebook ran to its end."""
    not_run: list[str] = field(default_factory=list)
    """Magic commands, such as `%pip install`, and cells in other languages. They do not run."""


def run_notebook(
    path: str | os.PathLike[str],
    *,
    dbutils: Dbutils | None = None,
    display: Display | None = None,
    variables: Mapping[str, Any] | None = None,
) -> NotebookRun:
    """Runs the cells of a notebook from top to bottom, with stand-ins for `dbutils` and `display`.

    `%run ./other` runs the other notebook with the same names. Other magic commands do not run. `await` outside of a
    function is not supported.

    Args:
        path: An `.ipynb` file, or the Python source that Databricks keeps in Git.
        dbutils: The stand-in with the arguments and secrets of this run.
        display: The stand-in that records what is displayed.
        variables: More global names, such as `spark`.

    Returns:
        What the notebook did.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no notebook.
        Exception: Whatever a cell raises. The traceback names the notebook, the cell and the line.
    """
    recorder = display if display is not None else Display()
    names: dict[str, Any] = {"__name__": "__main__", "dbutils": Dbutils() if dbutils is None else dbutils}
    names |= {"display": recorder, **(variables or {})}
    run = NotebookRun(names)
    before = len(recorder.shown)
    try:
        _run_cells(Path(path), run, recorder)
    except NotebookExit as end:
        run.exit_value = end.value
    shown = Display()
    shown(*recorder.shown[before:])
    run.shown, run.text = shown.shown, shown.text
    return run


def _run_cells(path: Path, run: NotebookRun, display: Display) -> None:
    for number, source in enumerate(_cells(path), 1):
        name = f"{path}, cell {number}"
        source = _PYTHON_CELL.sub("", source)
        if _OTHER_LANGUAGE.match(source):
            run.not_run.append(source)
            continue
        python = _without_magic(source, name, path, run, display)
        # With this entry, a traceback shows the line of the cell.
        linecache.cache[name] = (len(python), None, python.splitlines(keepends=True), name)
        tree = ast.parse(python, name)
        last = tree.body[-1] if tree.body else None
        value = None
        if isinstance(last, ast.Expr) and not python.rstrip().endswith(";"):
            del tree.body[-1]
            value = compile(ast.Expression(last.value), name, "eval", dont_inherit=True)
        exec(compile(tree, name, "exec", dont_inherit=True), run.variables)
        if value is not None and (result := eval(value, run.variables)) is not None:
            display(result)


def _cells(path: Path) -> list[str]:
    """The code cells."""
    text = path.read_text(encoding="utf-8")
    if text.startswith(_SOURCE_HEADER):
        cells = _SOURCE_CELL.split(text.removeprefix(_SOURCE_HEADER))
        return [_SOURCE_MAGIC.sub("", cell).strip() for cell in cells]
    try:
        cells = json.loads(text)["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is neither an .ipynb file nor Databricks' notebook source") from error


def _without_magic(source: str, name: str, path: Path, run: NotebookRun, display: Display) -> str:
    """The Python of a cell. A magic command becomes `pass`, so that an `if` around it and the numbers of lines stay."""
    try:
        compile(source, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError:
        pass
    else:
        return source  # a line that begins with % can be part of a text or of a calculation

    def replaced(magic: re.Match[str]) -> str:
        command = magic["command"]
        other = _RUN.match(command)
        if other is not None:
            _run_cells(_notebook_file(path.parent / other["path"]), run, display)
        else:
            run.not_run.append(command)
        return f"{magic['indent']}pass" + "\n" * command.count("\n")

    return _LINE_MAGIC.sub(replaced, source)


def _notebook_file(path: Path) -> Path:
    """The file of a notebook that `%run` names without its suffix."""
    candidates = [path, path.with_name(f"{path.name}.ipynb"), path.with_name(f"{path.name}.py")]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"%run: there is no notebook {path} (.ipynb, .py)")
    return found
