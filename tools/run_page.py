"""Executes every code block of a Markdown page, as a reader pastes it: `python tools/run_page.py docs/ledger.md`.

The blocks of a page run from top to bottom in an empty folder, with an empty home and without settings or credentials:

- `python` in one session, in which `await` works as in a notebook;
- `sh` in one bash, which ends at the first command that fails;
- `text` is what the block above it prints; `...` stands for any text;
- `toml`, `json`, `yaml` and `csv` are checked by their parser.

A block with `title="name"` is a file: it is checked and written into the folder, for the blocks below it. A block in
another language is an error, and so is one that is written in another way (`~~~`, or four spaces).
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import csv
import doctest
import inspect
import io
import json
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A fence, or the first line of code that is only indented. Items of a list, and their text, are no code.
MARKER = re.compile(r"^ *(?:```|~~~)|(?<=\n\n) {4,}(?![-*\d ])", re.MULTILINE)
FENCE = re.compile(
    r'^ *(?P<fence>```+)(?P<language>\w*)(?: title="(?P<title>[^"]+)")?[^\n]*\n(?P<text>.*?)^ *(?P=fence) *$',
    re.DOTALL | re.MULTILINE,
)
# What would make a page do something else on this machine than on a new one.
FOREIGN = ("JOBROTA_", "SAS_", "VIYA_", "AZURE_", "AWS_", "GOOGLE_", "DATABRICKS_", "SSH_", "PYTEST_")
END = "-- end of block --"


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    place: str
    language: str
    title: str | None
    text: str


def blocks(page: str, name: str) -> Iterator[Block]:
    """Yields the code blocks of a page, in order.

    Raises:
        SystemExit: There is code that is in none of them.
    """
    text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), page)
    outside = MARKER.search(text)
    if outside:
        line = text.count("\n", 0, outside.start()) + 1
        raise SystemExit(f"{name}:{line}: this code is in no block that can be executed: put it between ``` and ```")
    for found in FENCE.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        yield Block(f"{name}:{line}", found["language"], found["title"], textwrap.dedent(found["text"]))


def read_yaml(text: str) -> Any:
    """Returns the only document of a YAML text."""
    return yaml.safe_load(text)


def read_csv(text: str) -> list[list[str]]:
    """Returns the rows of a CSV text.

    Raises:
        ValueError: A row is shorter or longer than the first.
    """
    rows = list(csv.reader(io.StringIO(text), strict=True))
    for row in rows:
        if len(row) != len(rows[0]):
            raise ValueError(f"{row} has {len(row)} columns, and the first row has {len(rows[0])}")
    return rows


PARSERS: dict[str, Callable[[str], Any]] = {
    "csv": read_csv,
    "json": json.loads,
    "python": ast.parse,
    "toml": tomllib.loads,
    "yaml": read_yaml,
}


class Python:
    """A session into which a reader pastes one block after the other."""

    def __init__(self) -> None:
        """Starts with the names of a new interpreter."""
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._loop = asyncio.new_event_loop()

    def run(self, block: Block) -> str:
        """Runs a block, and returns what it printed."""
        # So that tracebacks show lines of the page.
        linecache.cache[block.place] = (len(block.text), None, block.text.splitlines(keepends=True), block.place)
        code = compile(block.text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE:
                self._loop.run_until_complete(eval(code, self._names))
            else:
                exec(code, self._names)
        return printed.getvalue()


class Shell:
    """A terminal into which a reader pastes one block after the other."""

    def __init__(self) -> None:
        """Starts bash in a group of its own, so that what runs in the background ends with it."""
        self._bash = subprocess.Popen(
            ["bash", "-euo", "pipefail"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, block: Block) -> str:
        """Runs a block, and returns what it printed.

        Raises:
            RuntimeError: A command failed.
        """
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        # A command that reads its input must not read the next block.
        self._bash.stdin.write(f"{{\n{block.text}\n}} < /dev/null\necho '{END}'\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            if line.rstrip("\n").endswith(END):
                return "".join([*printed, line.rstrip("\n").removesuffix(END)])
            printed.append(line)
        raise RuntimeError(f"a command ended with exit code {self._bash.wait()}:\n{''.join(printed)}")

    def close(self) -> None:
        """Ends bash and all that it started."""
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self._bash.pid, signal.SIGTERM)
        self._bash.communicate()


class Reader:
    """Pastes the blocks of a page."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._python = Python()
        self._shell: Shell | None = None
        self._printed: str | None = None

    def paste(self, block: Block) -> None:
        """Executes a block.

        Raises:
            ValueError: The block cannot be executed, or the one above printed something else.
            Exception: What the block raises.
        """
        if block.title is not None or block.language in ("toml", "json", "yaml", "csv"):
            self._keep(block)
        elif block.language == "python":
            self._printed = self._python.run(block)
        elif block.language == "sh":
            self._shell = self._shell or Shell()
            self._printed = self._shell.run(block)
        elif block.language == "text":
            self._compare(block)
        else:
            raise ValueError(
                f"a block in {block.language or 'no language'} cannot be executed: use python, sh or a table"
            )

    def close(self) -> None:
        """Ends what the page started."""
        if self._shell:
            self._shell.close()

    def _keep(self, block: Block) -> None:
        if block.language not in PARSERS:
            raise ValueError(f"a file in {block.language or 'no language'} cannot be checked: use {', '.join(PARSERS)}")
        PARSERS[block.language](block.text)
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")

    def _compare(self, block: Block) -> None:
        if self._printed is None:
            raise ValueError("there is no block above that could print this")
        if not doctest.OutputChecker().check_output(block.text, self._printed, doctest.ELLIPSIS):
            raise ValueError(f"the block above printed something else:\n{self._printed}")
        self._printed = None


def run(page: Path) -> int:
    """Executes the blocks of a page, and returns how many there are.

    Raises:
        SystemExit: A block failed.
    """
    found = list(blocks(page.read_text(encoding="utf-8"), page.name))
    reader = Reader()
    try:
        for block in found:
            try:
                reader.paste(block)
            except BaseException as error:
                # The lines of this file say nothing to the author of the page.
                shown = error.__traceback__
                while shown and shown.tb_frame.f_code.co_filename == __file__:
                    shown = shown.tb_next
                traceback.print_exception(type(error), error, shown)
                raise SystemExit(f"{block.place}: this block does not run:\n{block.text}") from None
    finally:
        reader.close()
    return len(found)


def main() -> None:
    """Runs the page that the command line names."""
    page = Path(sys.argv[1]).resolve()
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        work, home, temporary = (Path(folder) / name for name in ("work", "home", "tmp"))
        for directory in (work, home, temporary):
            directory.mkdir()
        # The package that runs this file, whatever else is on the PATH.
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.environ.update(HOME=str(home), XDG_STATE_HOME=str(home / "state"), PATH=programs)
        # A pytest that ends removes the directories of earlier runs. That of a page would remove those of large tests.
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        os.chdir(work)
        print(f"{page.name}: {run(page)} blocks")
        os.chdir("/")


if __name__ == "__main__":
    main()
