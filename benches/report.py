"""Measures the rows of a table of figures, and prints it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ledger_rows.common import FULL, QUICK, Result, Scale

HEADINGS = ("what (p50 / p95)", "ours", "the other", "ratio", "target", "met")


def cells(result: Result) -> tuple[str, ...]:
    """A result as the text of its cells."""
    met = "" if result.met is None else "yes" if result.met else "no"
    return (result.what, result.ours, result.other, result.ratio, result.target, met)


def versions(packages: Sequence[str]) -> str:
    """What is compared, on what."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    load = os.getloadavg()[0]
    return f"{', '.join(found)}; {os.cpu_count()} cores, local disk, load average before the run {load:.1f}"


def measure(
    title: str,
    description: str | None,
    rows: Mapping[str, Callable[[Path, Scale], Iterator[Result]]],
    packages: Sequence[str],
) -> int:
    """Measures and prints what the command line asks for.

    Args:
        title: Of the table.
        description: Of the command.
        rows: What can be measured: each is given a folder of its own.
        packages: Whose versions are printed with the table.

    Returns:
        1 if something could not be measured, else 0, whether or not targets are met.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a short run: fewer samples, less data")
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(rows), help=", ".join(rows))
    parser.add_argument("--folder", type=Path, help="where the tables are made (a temporary directory)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    facts = versions(packages)
    results: list[Result] = []
    failed = False
    # Everything is deleted at the end: for minutes after files were deleted, ext4 takes long to create others.
    with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as parent:
        for name in arguments.only or rows:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            folder = Path(parent, name)
            folder.mkdir()
            try:
                for result in rows[name](folder, QUICK if arguments.quick else FULL):
                    print(" | ".join(cells(result)), file=sys.stderr, flush=True)
                    results.append(result)
            except Exception as error:
                traceback.print_exc()
                results.append(Result(name, f"could not be measured: {error}", met=False))
                failed = True
    if arguments.markdown:
        print(f"{facts}\n\n| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}")
        for result in results:
            print(f"| {' | '.join(cells(result))} |")
    else:
        table = Table(title=title, caption=facts, show_lines=True)
        for heading in HEADINGS:
            table.add_column(heading)
        for result in results:
            table.add_row(*cells(result))
        Console().print(table)
    return int(failed)
