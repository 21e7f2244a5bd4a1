"""The options `--json` and `--quiet`, and the JSON of commands."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from jobrota.errors import InvalidInputError, NotFoundError
from jobrota.text import printable, timestamp

__all__ = [
    "add_json",
    "add_output",
    "complain",
    "discard_output",
    "explain",
    "named_file",
    "narrated",
    "output_lost",
    "prepare_streams",
    "print_json",
    "silenced",
]


def add_output(parser: argparse.ArgumentParser, content: str = "one JSON object") -> Any:
    """Adds `--json` and `--quiet`.

    Args:
        parser: The parser of a command.
        content: What `--json` prints.

    Returns:
        The group of the options, of which a call can have one.
    """
    group = parser.add_mutually_exclusive_group()
    add_json(group, content)
    group.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors and warnings")
    return group


def add_json(parser: Any, content: str = "one JSON object") -> None:
    """Adds `--json` alone, for a command whose output is its purpose."""
    parser.add_argument("--json", action="store_true", help=f"print {content}")


def print_json(value: Any) -> None:
    """Prints a value as JSON on one line. Times have the format of `timestamp`."""
    print(json.dumps(value, default=_jsonable), flush=True)


@contextmanager
def silenced(arguments: argparse.Namespace) -> Iterator[None]:
    """With `--quiet`, discards what the block prints. Errors and warnings go to the standard error."""
    if not getattr(arguments, "quiet", False):
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
        yield


def explain(arguments: argparse.Namespace, problems: Iterable[str]) -> None:
    """With `--quiet`, prints on the standard error why the command fails. Otherwise, its output says so."""
    if arguments.quiet:
        for problem in problems:
            complain(printable(problem))


def complain(text: str) -> None:
    """Prints an error on one line of the standard error. Where that cannot be written, the exit code has to do."""
    with suppress(OSError):
        print(f"jobrota: {' '.join(text.split())}", file=sys.stderr, flush=True)


@contextmanager
def named_file() -> Iterator[None]:
    """A file that an option or a setting names, and that is not there, is an error of usage: exit code 2."""
    try:
        yield
    except NotFoundError as error:
        raise InvalidInputError(str(error)) from error


def prepare_streams() -> None:
    """Makes the standard streams such that a command can print at any time.

    A closed stream gets a file, because the next one that is opened would become the output. Writing to a closed output
    still fails. What the encoding of the output does not have is written as an escape sequence.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def output_lost(error: OSError) -> None:
    """Says that the standard output cannot be written, and discards what is printed from now on."""
    complain(f"the standard output cannot be written: {error.strerror or error}")
    discard_output()


def discard_output() -> None:
    """Discards what is printed from now on, and what is not written yet."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def narrated(arguments: argparse.Namespace) -> Any:
    """With `--json`, what the block prints for people goes to the standard error: the output is one JSON value."""
    return redirect_stdout(sys.stderr) if arguments.json else nullcontext()


def _jsonable(value: Any) -> str:
    return timestamp(value) if isinstance(value, datetime) else str(value)
