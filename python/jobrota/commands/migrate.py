"""The command `jobrota migrate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobrota.commands.ledger import add_files, add_ledger, open_ledger, pair
from jobrota.commands.output import add_output, explain, print_json
from jobrota.commands.tables import print_table
from jobrota.errors import MissingPackageError

if TYPE_CHECKING:
    from jobrota.migration import MigrationReport

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "copy existing tables into a new ledger; without --copy or --finish, only say what would be copied"

_HEADS = {
    "plan": "nothing was written; --copy writes this:",
    "copy": "copied:",
    "finish": "compared all rows; nothing was written:",
}
_COLUMNS = {
    "plan": {"rows": "rows", "appended": "to copy", "acknowledged": "to acknowledge", "refused": "refused"},
    "copy": {"rows": "rows", "appended": "copied", "acknowledged": "acknowledged", "refused": "refused"},
    "finish": {"rows": "rows", "missing": "missing", "extra": "extra", "acknowledged": "to acknowledge"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE",
        help="root of the existing tables, or with --spark also the name of their schema",
    )  # fmt: skip
    add_ledger(parser)
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--copy", action="store_true", help="copy what the new ledger lacks; can be repeated")
    step.add_argument("--finish", action="store_true", help="check that both have exactly the same rows and flags")
    parser.add_argument(
        "--spark", action="store_true", help="read with the Spark session of this process: any layout, name or format"
    )
    parser.add_argument(
        "--table", action="append", type=pair, default=[], metavar="OURS=THEIRS",
        help="with --spark: name of a table, such as autosys_job_log=main.jobs.log; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--source-version", action="append", type=_version, default=[], metavar="TABLE=N",
        help="version to read, such as autosys_job_log=17 (default: the newest one); can be repeated",
    )  # fmt: skip
    parser.add_argument("--json-folder", metavar="FOLDER", help="folder of legacy JSON files; give it in each run")
    add_files(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns 1 if a row was refused or differs."""
    from jobrota.migration import migrate

    report = migrate(
        arguments.source,
        open_ledger(arguments),
        step="copy" if arguments.copy else "finish" if arguments.finish else "plan",
        spark=_session() if arguments.spark else None,
        tables=dict(arguments.table),
        json_folder=arguments.json_folder,
        fields=dict(arguments.field),
        timezone=arguments.timezone,
        versions=dict(arguments.source_version),
    )
    explain(arguments, _reasons(report))
    if arguments.json:
        print_json(report.to_dict())
        return 0 if report.ok else 1
    print(f"from {report.source} to {report.target}: {_HEADS[report.step]}")
    columns = _COLUMNS[report.step]
    rows = [[table.table, table.version, *(getattr(table, name) for name in columns)] for table in report.tables]
    if rows:
        print_table(("table", "version", *columns.values()), rows)
    for table in report.tables:
        if table.ahead and report.step != "finish":
            print(f"{table.table}: {table.ahead:,} acknowledged in the new ledger only; they stay so")
        if table.left_out:
            print(f"{table.table}: not copied: the columns {', '.join(table.left_out)}")
    files = report.imported
    if files is not None:
        print(
            f"legacy files: {files.files:,}; rows: {files.rows:,}; already known: {files.known:,}; bad: {files.bad:,}"
        )
    for table in report.tables:
        for problem in table.problems:
            print(problem)
        if table.examples:
            names = ("file_name", "job_id", "status", "timestamp")
            shown = [[*(row[name] for name in names), _reason(row)] for row in table.examples]
            print_table((*names, "reason"), shown)
    if files is not None and files.failures:
        print_table(("file", "error"), [[row["file"], row["reason"]] for row in files.failures])
    return 0 if report.ok else 1


def _reasons(report: MigrationReport) -> Iterator[str]:
    """Yields why the command ends with 1."""
    for table in report.tables:
        yield from table.problems
        counts = {"refused": table.refused, "missing": table.missing, "extra": table.extra}
        if not table.problems and any(counts.values()):
            yield f"{table.table}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    if report.imported is not None:
        yield from (f"{row['file']}: {row['reason']}" for row in report.imported.failures)


def _reason(row: dict[str, Any]) -> str:
    if "source_flags" not in row:
        return str(row["reason"])
    sides = (
        " ".join(f"{count:,} {flag}" for flag, count in row[side].items()) for side in ("source_flags", "target_flags")
    )
    return "source: {}; new ledger: {}".format(*(side or "none" for side in sides))


def _session() -> Any:
    """The Spark session of this process. On Databricks, a job has one."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        text = "--spark needs pyspark, which Databricks has: run the command there, or pip install pyspark delta-spark"
        raise MissingPackageError(text) from error
    return SparkSession.builder.getOrCreate()


def _version(text: str) -> tuple[str, int]:
    table, number = pair(text)
    return table, int(number)
