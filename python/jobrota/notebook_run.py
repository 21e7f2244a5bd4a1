"""Runs the file of a notebook in this process, for tests: what the test configured applies, and no kernel starts."""

from __future__ import annotations
import __future__

import ast
import io
import json
import linecache
import os
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobrota.stand_ins import Dbutils, Display, NotebookExit

__all__ = ["NotebookRun", "run_notebook"]

# How Databricks stores a notebook as Python source.
_SOURCE_HEADER = "# Databricks notebook source"
_SOURCE_CELL = re.compile(r"^# COMMAND -+[ \t]*$", re.MULTILINE)
_SOURCE_MAGIC = re.compile(r"^# MAGIC(?: |$)", re.MULTILINE)

# A title (`# DBTITLE 1,…`) and other comments can come before the first line of a cell.
_COMMENTS = re.compile(r"(?:[ \t]*(?:#.*)?\n)*")
# The first line of a cell that is Python all the same.
_PYTHON_CELL = re.compile(r"%(?:%(?:time|capture)\b.*|%?python\b[ \t]*)")
# A cell whose first line is one of these is in another language, or is text.
_OTHER_LANGUAGE = re.compile(r"%%|%(?:md|md-sandbox|sql|sh|r|scala|fs)\b")

# What IPython runs in place of Python: a command, one whose result has a name, and the help for a name.
_COMMAND = re.compile(r"[%!].*|[\w.,\[\] \t]+=[ \t]*[%!].*|\?{1,2}[^?\s].*|[%\w.*]+\?{1,2}[ \t]*", re.DOTALL)
_TIME = re.compile(r"%time[ \t]+(?P<statement>\S.*)", re.DOTALL)
_RUN = re.compile(
    r"%run\s+(?P<quote>[\"']?)(?P<path>[^\"'$]+?)(?P=quote)"
    r"(?P<arguments>(?:\s+\$\w+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"']+))*)(?:\s+#.*|\s*)"
)
_RUN_ARGUMENT = re.compile(r"\$(?P<name>\w+)\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<plain>\S+))")
_FEATURES = [getattr(__future__, name).compiler_flag for name in __future__.all_feature_names]


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
    """Commands, such as `%pip install`, `files = !ls` and `len?`, and cells in other languages. They do not run."""


def run_notebook(
    path: str | os.PathLike[str],
    *,
    dbutils: Dbutils | None = None,
    display: Display | None = None,
    variables: Mapping[str, Any] | None = None,
) -> NotebookRun:
    """Runs the cells of a notebook from top to bottom, with stand-ins for `dbutils` and `display`.

    `%run ./other $name="value"` runs the other notebook with the same names, and `%time` runs its statement. Other
    commands do not run: a name that would get the result of one, as in `files = !ls`, keeps its value of `variables`.
    `await` outside of a function is not supported.

    Args:
        path: An `.ipynb` file, or the Python source that Databricks keeps in Git.
        dbutils: The stand-in with the arguments and secrets of this run.
        display: The stand-in that records what is displayed.
        variables: More global names, such as `spark`.

    Returns:
        What the notebook did.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is no notebook, or a `%run` cannot be read.
        Exception: Whatever a cell raises. The traceback names the notebook, the cell and the line.
    """
    recorder = display if display is not None else Display()
    names: dict[str, Any] = {"__name__": "__main__", "dbutils": Dbutils() if dbutils is None else dbutils}
    names |= {"display": recorder, **(variables or {})}
    run = NotebookRun(names)
    before = len(recorder.shown)
    try:
        _Cells(run, recorder).run(Path(path))
    except NotebookExit as end:
        run.exit_value = end.value
    shown = Display()
    shown(*recorder.shown[before:])
    run.shown, run.text = shown.shown, shown.text
    return run


class _Cells:
    """Runs cells. A `from __future__ import` holds in all later cells, as in a notebook."""

    def __init__(self, run: NotebookRun, display: Display) -> None:
        self._run = run
        self._display = display
        self._features = 0
        self._running: list[Path] = []

    def run(self, path: Path) -> None:
        self._running.append(path.resolve())
        for number, source in enumerate(_cells(path), 1):
            name = f"{path}, cell {number}"
            comments = _COMMENTS.match(source)
            start = comments.end() if comments else 0
            if python := _PYTHON_CELL.match(source, start):
                source = source[:start] + source[python.end() :]
            elif _OTHER_LANGUAGE.match(source, start):
                self._run.not_run.append(source[start:])
                continue
            self._execute(self._without_commands(source, name, path), name)
        self._running.pop()

    def _execute(self, python: str, name: str) -> None:
        # With this entry, a traceback shows the line of the cell.
        linecache.cache[name] = (len(python), None, python.splitlines(keepends=True), name)
        tree = ast.parse(python, name)
        last = tree.body[-1] if tree.body else None
        value = None
        if isinstance(last, ast.Expr) and not python.rstrip().endswith(";"):
            del tree.body[-1]
            value = ast.Expression(last.value)
        code = compile(tree, name, "exec", self._features, dont_inherit=True)
        self._features |= sum(flag for flag in _FEATURES if code.co_flags & flag)
        exec(code, self._run.variables)
        if value is not None:
            result = eval(compile(value, name, "eval", self._features, dont_inherit=True), self._run.variables)
            if result is not None:
                self._display(result)

    def _without_commands(self, source: str, name: str, path: Path) -> str:
        """The Python of a cell. A command becomes `pass`, so that an `if` around it and the numbers of lines stay."""
        try:
            compile(source, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        except SyntaxError:
            pass
        else:
            return source  # a line that begins with % can be part of a text or of a calculation
        python = ""
        lines = io.StringIO(source)
        for line in lines:
            code = line.strip()
            if not _COMMAND.fullmatch(code) or _continues(python):
                python += line
                continue
            while line.endswith("\\\n"):  # a command ends with its line, unless a backslash continues it
                line += next(lines, "")
            replaced = self._replaced(line.strip(), name, path)
            indent = line[: len(line) - len(line.lstrip())]
            python += indent + replaced + "\n" * (line.count("\n") - replaced.count("\n"))
        return python

    def _replaced(self, command: str, name: str, path: Path) -> str:
        """The Python in place of a command."""
        if statement := _TIME.fullmatch(command):
            return statement["statement"]
        if not re.match(r"%run\b", command):
            self._run.not_run.append(command)
            return "pass"
        other = _RUN.fullmatch(command)
        if other is None:
            raise ValueError(f'{name}: cannot read {command!r}; its form is %run ./notebook $name="value"')
        for each in _RUN_ARGUMENT.finditer(other["arguments"]):
            value = each["double"] or each["single"] or each["plain"] or ""
            self._run.variables["dbutils"].widgets.give(each["name"], value)
        notebook = _notebook_file(path.parent / other["path"])
        if notebook.resolve() in self._running:
            raise ValueError(f"{name}: {command!r} runs a notebook that has not ended yet, and would never end")
        self.run(notebook)
        return "pass"


def _continues(python: str) -> bool:
    """Whether the next line belongs to a statement or a text that has begun."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(python).readline):
            pass
    except tokenize.TokenError:
        return True
    except SyntaxError:  # such as a wrong indentation, which compiling reports
        pass
    return False


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


def _notebook_file(path: Path) -> Path:
    """The file of a notebook that `%run` names without its suffix."""
    candidates = [path, path.with_name(f"{path.name}.ipynb"), path.with_name(f"{path.name}.py")]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"%run: there is no notebook {path} (.ipynb, .py)")
    return found
