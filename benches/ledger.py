"""Prints the ledger's figures side by side with other writers of Delta tables, all measured in this run: `make bench`.

Times depend on the machine, and on what else it does: compare them within one run, and quote the ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ledger_rows import latency, many, volume
from ledger_rows.common import FULL, QUICK, Result, Scale

ROWS: dict[str, Callable[[Path, Scale], Iterator[Result]]] = {
    "single": latency.single,
    "history": latency.history,
    "threads": latency.threads,
    "delay": latency.delay,
    "processes": many.processes,
    "fetch": volume.fetch,
    "acknowledge": volume.acknowledge,
    "spark": volume.spark,
    "mixed": many.mixed,
    "raw": latency.raw,
}

HEADINGS = ("what (p50 / p95)", "ours", "the other", "ratio", "target", "met")


def cells(result: Result) -> tuple[str, ...]:
    """A result as the text of its cells."""
    met = "" if result.met is None else "yes" if result.met else "no"
    return (result.what, result.ours, result.other, result.ratio, result.target, met)


def versions() -> str:
    """What is compared, on what."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("jobrota", "deltalake", "pyspark", "delta-spark"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    load = os.getloadavg()[0]
    return f"{', '.join(found)}; {os.cpu_count()} cores, local disk, load average before the run {load:.1f}"


def main() -> int:
    """Measures and prints; 1 if something could not be measured, whether or not targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: fewer samples, less data")
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--folder", type=Path, help="where the tables are made (a temporary directory)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    facts = versions()
    results: list[Result] = []
    failed = False
    for name in arguments.only or ROWS:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
            try:
                for result in ROWS[name](Path(folder), QUICK if arguments.quick else FULL):
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
        table = Table(title="The ledger's figures", caption=facts, show_lines=True)
        for heading in HEADINGS:
            table.add_column(heading)
        for result in results:
            table.add_row(*cells(result))
        Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
