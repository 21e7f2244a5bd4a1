"""The command `jobrota ledger`: shows, imports into and maintains a ledger."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from jobrota._native import JobLedger, LedgerSummary, setting_missing, settings_lookup
from jobrota.commands.durations import duration
from jobrota.commands.output import add_output, complain, explain, print_json
from jobrota.commands.tables import counted, print_table
from jobrota.text import timestamp

__all__ = ["TEXT", "add_arguments", "add_files", "add_ledger", "add_table", "open_ledger", "pair", "print_tables"]

TEXT = "show, import into and maintain the ledger"


def add_arguments(command: Any, actions: Any) -> None:
    """Adds the actions, each made by `command`."""
    load = command(actions, "import", "import a folder of legacy JSON files, each record once", _import)
    status = command(actions, "status", "show what is in the ledger", _status)
    text = "compact the tables, and delete files and log entries that are no longer needed"
    maintain = command(actions, "maintain", text, _maintain)
    for action in (load, status, maintain):
        add_ledger(action)
        add_output(action)
    load.add_argument("folder", metavar="FOLDER", help="local or mounted folder")
    add_files(load)
    maintain.add_argument(
        "--retain-hours",
        type=_hours,
        default=168.0,
        metavar="N",
        help="hours that older versions stay readable, or a duration such as 7d",
    )


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names the ledger."""
    parser.add_argument("--ledger", metavar="ROOT", help="ledger (default: JOBROTA_LEDGER, jobrota.toml)")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that describe legacy JSON files."""
    parser.add_argument(
        "--field", action="append", type=pair, default=[], metavar="OURS=THEIRS",
        help="name of a field in the files, such as job_id=jobName; can be repeated",
    )  # fmt: skip
    parser.add_argument("--timezone", metavar="NAME", help="IANA name, for times without an offset")


def add_table(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names the table whose rows are delivered."""
    parser.add_argument(
        "--table", choices=("job_notifications", "autosys_job_log"), default="job_notifications",
        help="the table whose rows are delivered",
    )  # fmt: skip


def open_ledger(arguments: argparse.Namespace) -> JobLedger:
    """Opens the ledger that the arguments or the settings name."""
    root = arguments.ledger or settings_lookup("ledger")
    if not root:
        raise setting_missing("ledger", "no ledger is given: use --ledger ROOT")
    return JobLedger(root)


def print_tables(summary: LedgerSummary) -> None:
    """Prints how many rows the tables of a ledger have."""
    print(f"ledger {summary.root}")
    rows = []
    for name, counts in (("autosys_job_log", summary.executions), ("job_notifications", summary.notifications)):
        oldest = counts["oldest_pending"]
        held = [counts[key] for key in ("rows", "pending", "acknowledged", "other_flags")]
        rows.append([name, *held, oldest and timestamp(oldest, "seconds")])
    print_table(("table", "rows", "pending", "acknowledged", "other flags", "oldest pending"), rows)


def _import(arguments: argparse.Namespace) -> int:
    ledger = open_ledger(arguments)
    report = ledger.import_json(arguments.folder, fields=dict(arguments.field), timezone=arguments.timezone)
    if arguments.json:
        print_json(report.to_dict())
        return 1 if report.bad else 0
    explain(arguments, (_bad_record(failure) for failure in report.failures))
    print(
        f"{counted(report.files, 'file')}: {counted(report.rows, 'row')} from {report.imported:,} of them, "
        f"{report.known:,} already known, {report.bad:,} with errors"
    )
    if report.ambiguous_times:
        print(f"local times that occur twice: {report.ambiguous_times:,}; the first one was used")
    if report.ignored:
        print("ignored: " + ", ".join(f"{count:,} {reason}" for reason, count in report.ignored.items()))
    if report.failures:
        rows = [[row["file"], row["line"], row["record"], row["reason"]] for row in report.failures]
        print_table(("file", "line", "record", "error"), rows)
    return 1 if report.bad else 0


def _bad_record(failure: Mapping[str, Any]) -> str:
    places = [f"{name} {failure[name]}" for name in ("line", "record") if failure[name] is not None]
    return f"{', '.join([failure['file'], *places])}: {failure['reason']}"


def _status(arguments: argparse.Namespace) -> int:
    summary = open_ledger(arguments).summary()
    if arguments.json:
        print_json(summary.to_dict())
        return 0
    print_tables(summary)
    if summary.attempts:
        attempts = (f"{count:,} {outcome}" for outcome, count in summary.attempts.items())
        print("attempts to deliver: " + ", ".join(attempts))
    return 0


def _maintain(arguments: argparse.Namespace) -> int:
    report = open_ledger(arguments).maintain(retain_hours=arguments.retain_hours)
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(f"ledger {report.root}")
        for table in report.tables:
            print(
                f"  {table['table']}: {counted(table['files_before'], 'file')}, now {table['files_after']:,}; "
                f"{table['files_vacuumed']:,} deleted ({counted(table['bytes_freed'], 'byte')}), "
                f"log entries removed: {table['log_entries_removed']:,}"
            )
            for note in table["notes"]:
                print(f"    {note}")
    for problem in report.problems:
        complain(problem)
    return 1 if report.problems else 0


def pair(text: str) -> tuple[str, str]:
    """Returns the two sides of an option such as `job_id=jobName`."""
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form OURS=THEIRS, such as job_id=jobName")
    return ours, theirs


def _hours(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        try:
            return duration(text) / 3600
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours, or text such as 36h or 7d") from None
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of hours of at least 0")
    return number
