"""The options `--json` and `--quiet`, and the JSON of commands."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

from jobrota.text import timestamp

__all__ = ["add_json", "add_output", "narrated", "print_json", "silenced"]


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


def narrated(arguments: argparse.Namespace) -> Any:
    """With `--json`, what the block prints for people goes to the standard error: the output is one JSON value."""
    return redirect_stdout(sys.stderr) if arguments.json else nullcontext()


def _jsonable(value: Any) -> str:
    return timestamp(value) if isinstance(value, datetime) else str(value)
