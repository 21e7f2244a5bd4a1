"""Notebooks that run in the process of a test, and the stand-ins that they get."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from jobrota.notebook_run import run_notebook
from jobrota.stand_ins import Dbutils, Display


def write(path: Path, *cells: str) -> Path:
    """Writes a notebook with these code cells, after a text."""
    content: list[dict[str, Any]] = [{"cell_type": "markdown", "source": ["# A text"]}]
    content += [{"cell_type": "code", "source": cell.splitlines(keepends=True), "outputs": []} for cell in cells]
    path.write_text(json.dumps({"cells": content, "nbformat": 4}), encoding="utf-8")
    return path


class Page:
    """A value with HTML."""

    def _repr_html_(self) -> str:
        return "<b>page</b>"


def test_the_last_value_of_a_cell_is_shown(tmp_path: Path) -> None:
    run = run_notebook(
        write(
            tmp_path / "n.ipynb", "a = 1\na + 1", "a;", "None", "display('x', summary=True)", "page", "def f():\n  1"
        ),
        variables={"page": Page()},
    )
    assert run.shown[:2] == [2, "x"]
    assert run.text == "2\n'x'\n<b>page</b>"
    assert run.variables["a"] == 1
    assert (run.exit_value, run.not_run) == (None, [])


def test_magic_commands_do_not_run(tmp_path: Path) -> None:
    run = run_notebook(
        write(
            tmp_path / "n.ipynb",
            'if "dbutils" in globals():\n    %pip install x.whl\n    dbutils.library.restartPython()\na = 7',
            'text = """\n%pattern\n"""\nrest = (a\n% 4)',
            "%sql\nSELECT 1",
            "%python\nb = rest",
            "%%bash\nls",
            "!ls",
            "%%time\nc = rest",
            "%pip install x \\\n  y\nimport sys; line = sys._getframe().f_lineno",
        )
    )
    assert run.not_run == ["%pip install x.whl", "%sql\nSELECT 1", "%%bash\nls", "!ls", "%pip install x \\\n  y"]
    assert (run.variables["text"], run.variables["b"], run.variables["c"]) == ("\n%pattern\n", 3, 3)
    assert run.variables["line"] == 3


def test_the_source_format_of_databricks_and_run(tmp_path: Path) -> None:
    write(tmp_path / "common.ipynb", "def double(x):\n    return 2 * x")
    notebook = tmp_path / "n.py"
    notebook.write_text(
        "# Databricks notebook source\n# MAGIC %md\n# MAGIC # A title\n\n# COMMAND ----------\n\n"
        "# MAGIC %run ./common\n\n# COMMAND ----------\n\ndouble(4)\n"
    )
    run = run_notebook(notebook)
    assert (run.shown, run.not_run) == ([8], ["%md\n# A title"])
    write(tmp_path / "m.ipynb", "%run ./missing")
    with pytest.raises(FileNotFoundError, match="missing"):
        run_notebook(tmp_path / "m.ipynb")


def test_comments_and_titles_come_before_a_cell_of_another_language(tmp_path: Path) -> None:
    notebook = tmp_path / "n.py"
    cells = (
        "# DBTITLE 1,Show\n# MAGIC %sql\n# MAGIC SELECT 1",
        "# DBTITLE 1,List\n# MAGIC\n# MAGIC %sh\n# MAGIC ls\n# MAGIC cd /tmp; ls",
        "# DBTITLE 1,Text\n# MAGIC %md\n# MAGIC it's text",
        "# DBTITLE 1,Python\n# MAGICAL, and no command\na = 1",
        "# MAGIC %python\n# MAGIC b = a",
    )
    notebook.write_text("# Databricks notebook source\n" + "\n\n# COMMAND ----------\n\n".join(cells))
    run = run_notebook(notebook)
    assert run.not_run == ["%sql\nSELECT 1", "%sh\nls\ncd /tmp; ls", "%md\nit's text"]
    assert run.variables["b"] == 1
    run = run_notebook(write(tmp_path / "n.ipynb", "# c\n\n%%sql\nselect 1", "# c\n%%time\na = 1"))
    assert (run.not_run, run.variables["a"]) == (["%%sql\nselect 1"], 1)


def test_a_text_keeps_its_lines_beside_a_command(tmp_path: Path) -> None:
    cell = "%pip install x\ns = '''\n%d items\n!\n'''\nt = ('a'\n% ())\nu = 1 + \\\n2\n!echo it's \\\n  x\nv = 5"
    run = run_notebook(write(tmp_path / "n.ipynb", cell))
    assert run.not_run == ["%pip install x", "!echo it's \\\n  x"]
    names = ("s", "t", "u", "v")
    assert [run.variables[name] for name in names] == ["\n%d items\n!\n", "a", 3, 5]


def test_results_of_commands_and_help_are_not_there(tmp_path: Path) -> None:
    cell = "x = !ls\ny = %sql SELECT 1\nif x:\n    len?\n?len\nstr.join??\nz = x"
    run = run_notebook(write(tmp_path / "n.ipynb", cell), variables={"x": ["a"]})
    assert run.not_run == ["x = !ls", "y = %sql SELECT 1", "len?", "?len", "str.join??"]
    assert run.variables["z"] == ["a"]
    assert "y" not in run.variables


def test_time_runs_its_statement(tmp_path: Path) -> None:
    run = run_notebook(write(tmp_path / "n.ipynb", "%time x = 5\nx = x + 1", "if x:\n    %time x += \\\n    1\nx"))
    assert (run.shown, run.not_run) == ([7], [])


def test_run_takes_arguments_and_a_comment(tmp_path: Path) -> None:
    write(tmp_path / "my other.ipynb", "dbutils.widgets.text('a', '1')\nfound.append(dbutils.widgets.get('a'))")
    found: list[str] = []
    cells = (
        "%run ./my other",
        '%run "./my other" $a="b c" $d = 2 # why',
        "%run './my other' # c",
        "%run ./my other $a=''",
    )
    run = run_notebook(write(tmp_path / "n.ipynb", *cells), variables={"found": found})
    assert found == ["1", "b c", "b c", ""]
    assert run.variables["dbutils"].widgets.get("d") == "2"
    for wrong in ("%run", "%run ./other a=1 $b", '%run ./other $a="'):
        with pytest.raises(ValueError, match=r"n\.ipynb, cell 2: cannot read '%run"):
            run_notebook(write(tmp_path / "n.ipynb", "1", wrong))


def test_notebooks_that_run_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "%run ./b")
    write(tmp_path / "b.ipynb", "1", "%run ./a")
    with pytest.raises(ValueError, match=r"b\.ipynb, cell 2: '%run ./a' runs a notebook that has not ended"):
        run_notebook(tmp_path / "a.ipynb")
    write(tmp_path / "d.ipynb", "n = globals().get('n', 0) + 1")
    run = run_notebook(write(tmp_path / "c.ipynb", "%run ./d", "%run ./d", "n"))
    assert run.shown == [2], "one after the other is no circle"


def test_future_imports_hold_in_later_cells(tmp_path: Path) -> None:
    run = run_notebook(write(tmp_path / "n.ipynb", "from __future__ import annotations", "def f(a: Nope): pass\nf"))
    assert run.variables["f"].__annotations__ == {"a": "Nope"}
    with pytest.raises(NameError, match="Nope"):
        run_notebook(write(tmp_path / "n.ipynb", "def f(a: Nope): pass\nf.__annotations__"))


def test_exit_ends_the_notebook_whatever_it_catches(tmp_path: Path) -> None:
    cell = "try:\n    dbutils.notebook.exit('3 rows')\nexcept Exception:\n    pass"
    run = run_notebook(write(tmp_path / "n.ipynb", "1", cell, "2"))
    assert (run.exit_value, run.shown) == ("3 rows", [1])


def test_an_error_names_the_cell_and_shows_its_line(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_notebook(write(tmp_path / "n.ipynb", "a = 0", "b = 1\n1 / a"))
    text = "".join(traceback.format_exception(caught.value))
    assert "n.ipynb, cell 2" in text
    assert "1 / a" in text
    with pytest.raises(SyntaxError, match=r"n\.ipynb, cell 1"):
        run_notebook(write(tmp_path / "n.ipynb", "a b"))


def test_only_notebooks_run(tmp_path: Path) -> None:
    path = tmp_path / "n.py"
    for text in ("print(1)", "[]", '{"cells": [{}]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="neither"):
            run_notebook(path)


def test_recorders_of_two_runs_stay_apart(tmp_path: Path) -> None:
    display = Display()
    path = write(tmp_path / "n.ipynb", "1")
    assert run_notebook(path, display=display).shown == run_notebook(path, display=display).shown == [1]
    assert display.shown == [1, 1]


def test_widgets() -> None:
    widgets = Dbutils(widgets={"study": "B", "mode": "batch", "only": "x"}).widgets
    widgets.text("study", "A", "Study")
    widgets.text("empty", "")
    widgets.dropdown("mode", "window", ["window", "batch"], label="Mode")
    widgets.dropdown("speed", "1", ["1", "2"])
    assert widgets.getAll() == {"study": "B", "mode": "batch", "only": "x", "empty": "", "speed": "1"}
    assert widgets.get("only") == "x"
    widgets.remove("study")
    with pytest.raises(LookupError, match="'study'"):
        widgets.get("study")
    with pytest.raises(LookupError, match="'study'"):
        widgets.remove("study")
    widgets.text("study", "A")
    assert widgets.get("study") == "B", "the argument of the run is still there"
    widgets.remove("empty")
    widgets.text("empty", "A")
    assert widgets.get("empty") == "A"
    for default, choices in (("3", ["1", "2"]), ("1", ["1", "3"])):
        with pytest.raises(ValueError, match="choices"):
            Dbutils(widgets={"speed": "2"}).widgets.dropdown("speed", default, choices)
    widgets.removeAll()
    assert widgets.getAll() == {}
    widgets.dropdown("mode", "window", ["window", "batch"])
    assert widgets.getAll() == {"mode": "batch"}


def test_secrets_are_found_and_not_shown() -> None:
    secrets = Dbutils(secrets={"b": {"password": "hidden", "key": "k"}, "a": {}}).secrets
    assert [scope.name for scope in secrets.listScopes()] == ["a", "b"]
    assert [secret.key for secret in secrets.list("b")] == ["key", "password"]
    assert secrets.get("b", "password") == "hidden"
    assert "hidden" not in repr(secrets)
    for scope, key in (("a", "password"), ("c", "password")):
        with pytest.raises(LookupError, match=rf"scope.*{scope}"):
            secrets.get(scope, key)
    with pytest.raises(LookupError, match="c"):
        secrets.list("c")
