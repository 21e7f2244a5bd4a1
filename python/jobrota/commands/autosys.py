"""The command `jobrota autosys`: delivers pending rows, shows the state of deliveries, and settles rows manually."""

from __future__ import annotations

import argparse
import math
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from jobrota.commands import deliver
from jobrota.commands.durations import checked_duration, duration
from jobrota.commands.ledger import add_ledger, add_table, open_ledger, print_tables
from jobrota.commands.output import add_output, print_json
from jobrota.commands.tables import counted, print_table
from jobrota.text import printable, timestamp

TEXT = "deliver the ledger's rows to AutoSys, show the state of deliveries, and settle rows manually"

_AGES = {"under_15m": "under 15 min", "15m_to_1h": "15 min to 1 h", "1h_to_24h": "1 h to 24 h", "over_24h": "over 24 h"}


def add_arguments(command: Any, actions: Any) -> None:
    """Adds the actions, each made by `command`."""
    deliver.add_arguments(command(actions, "deliver", deliver.TEXT, deliver.run))

    status = command(actions, "status", "show what is pending, for how long, and the success of deliveries", _status)
    add_ledger(status)
    status.add_argument(
        "--since", type=_since, metavar="WHEN", help='count attempts since a time, or since "24h" ago (default)'
    )
    add_output(status).add_argument("--prometheus", action="store_true", help="print text for Prometheus")

    parked = command(actions, "parked", "list the parked rows", _parked)
    add_ledger(parked)
    add_table(parked)
    add_output(parked, "one JSON list")

    redrive = command(actions, "redrive", "return parked rows to delivery", _redrive)
    add_ledger(redrive)
    add_table(redrive)
    which = redrive.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", metavar="JOB", help="only the rows of this job; this or --all is required")
    which.add_argument("--all", action="store_true", help="all of them; this or --job is required")
    redrive.add_argument("--reason", metavar="TEXT", help="why; it is recorded")
    add_output(redrive)

    for name, text, run in (
        ("ack", "settle one pending row that AutoSys is known to have", _ack),
        ("skip", "settle one pending row that must not be sent", _skip),
    ):
        settle = command(actions, name, text, run)
        add_ledger(settle)
        add_table(settle)
        settle.add_argument("--job", required=True, metavar="JOB", help="the row's job")
        settle.add_argument("--file", required=True, metavar="FILE", help="the row's file")
        settle.add_argument(
            "--at",
            type=_time,
            metavar="TIMESTAMP",
            help="its timestamp, if several rows match: 2026-05-01T06:00:00Z",
        )
        settle.add_argument("--reason", required=True, metavar="TEXT", help="why; it is recorded")
        add_output(settle)

    unnotified = command(actions, "unnotified", "list executions without a notification", _unnotified)
    add_ledger(unnotified)
    unnotified.add_argument(
        "--older-than",
        type=checked_duration,
        default="1h",
        metavar="TIME",
        help='minimum time pending: "90s", "15m", "1h", "2d"',
    )
    add_output(unnotified, "one JSON list")


def _status(arguments: argparse.Namespace) -> int:
    summary = open_ledger(arguments).summary(since=arguments.since)
    if arguments.json:
        print_json(summary.to_dict())
        return 0
    if arguments.prometheus:
        print(summary.to_prometheus(), end="")
        return 0
    print_tables(summary)
    if summary.pending:
        print(f"\npending in {summary.source}, by age and by status")
        ages = [(_AGES.get(age, age), count) for age, count in summary.pending_by_age.items()]
        print_table(("pending for", "rows"), ages)
        print_table(("status", "rows"), list(summary.pending_by_status.items()))
    print()
    for line in _delivery_lines(summary):
        print(line)
    return 0


def _delivery_lines(summary: Any) -> list[str]:
    since = f"since {timestamp(summary.since, 'seconds')}"
    lines = []
    if summary.success_rate is None:
        lines.append(f"deliveries: none {since}")
    else:
        # Rounded down: only if all succeeded is it 100 %.
        share = math.floor(1000 * summary.success_rate) / 10
        lines.append(f"deliveries: {share} % of the attempts {since} were successful")
    if summary.attempts:
        lines.append("attempts: " + ", ".join(f"{count:,} {outcome}" for outcome, count in summary.attempts.items()))
    if summary.retrying:
        when = timestamp(summary.next_retry, "seconds") if summary.next_retry else "with the next delivery"
        lines.append(f"next retry: {when} ({counted(summary.retrying, 'row')})")
    if summary.parked:
        lines.append(f"parked: {summary.parked:,}, see jobrota autosys parked")
    if summary.unnotified:
        lines.append(f"executions without a notification: {summary.unnotified:,}, see jobrota autosys unnotified")
    return lines


def _parked(arguments: argparse.Namespace) -> int:
    rows = open_ledger(arguments).parked(table=arguments.table).to_pylist()
    _show(rows, arguments, "no row is parked")
    return 0


def _redrive(arguments: argparse.Namespace) -> int:
    count = open_ledger(arguments).redrive(job_id=arguments.job, reason=arguments.reason, table=arguments.table)
    if arguments.json:
        print_json({"redriven": count})
    if not count:
        of = f" of job {arguments.job}" if arguments.job else ""
        print(f"jobrota: no row{of} is parked in {arguments.table}; nothing was done", file=sys.stderr)
        return 1
    are, them = ("is", "it") if count == 1 else ("are", "them")
    if not arguments.json:
        print(f"{counted(count, 'row')} {are} no longer parked; the next delivery sends {them}")
    return 0


def _ack(arguments: argparse.Namespace) -> int:
    return _settle(arguments, delivered=True)


def _skip(arguments: argparse.Namespace) -> int:
    return _settle(arguments, delivered=False)


def _settle(arguments: argparse.Namespace, *, delivered: bool) -> int:
    ledger = open_ledger(arguments)
    at = "notification_timestamp" if arguments.table == "job_notifications" else "execution_timestamp"
    pending = ledger.pending_notifications if arguments.table == "job_notifications" else ledger.pending_executions
    table = pending(job_id=arguments.job)
    matches = [
        (place, row)
        for place, row in enumerate(table.to_pylist())
        if row["file_name"] == arguments.file and arguments.at in (None, row[at])
    ]
    if not matches:
        when = f" at {timestamp(arguments.at)}" if arguments.at else ""
        what = f"file {arguments.file} and job {arguments.job}{when}"
        print(f"jobrota: no pending row of {arguments.table} has {what}; nothing was done", file=sys.stderr)
        return 1
    if len({(row["status"], row[at]) for _, row in matches}) > 1:
        print("jobrota: several pending rows match; select one with --at; nothing was done:", file=sys.stderr)
        for _, row in matches:
            print(f"  --at {timestamp(row[at]) if row[at] else '(none)'}  {printable(row['status'])}", file=sys.stderr)
        return 2
    # Identical rows are separate events: one of them is settled.
    place, row = matches[0]
    count = ledger.settle_by_hand(
        table.slice(place, 1), reason=arguments.reason, delivered=delivered, table=arguments.table
    )
    if not count:
        print("jobrota: the row is not pending any more; nothing was done", file=sys.stderr)
        return 1
    done = "acknowledged" if delivered else "skipped"
    alike = len(matches) - 1
    if arguments.json:
        print_json(row | {"autosys_update_flag": "YES", "settled": done, "identical_rows_pending": alike})
        return 0
    print(f"{done}: {printable(row['job_id'])} {printable(row['status'])} of {printable(row[at])}")
    if alike:
        print(f"{alike} identical {'row is' if alike == 1 else 'rows are'} still pending")
    return 0


def _unnotified(arguments: argparse.Namespace) -> int:
    rows = open_ledger(arguments).executions_without_notification(older_than=arguments.older_than).to_pylist()
    _show(rows, arguments, f"no execution is without a notification for {arguments.older_than} or longer")
    return 0


def _show(rows: list[dict[str, Any]], arguments: argparse.Namespace, nothing: str) -> None:
    if arguments.json:
        print_json(rows)
    elif not rows:
        print(nothing)
    else:
        names = [name for name in rows[0] if name != "autosys_update_flag"]
        print_table(
            [name.replace("_", " ") for name in names], [[_cell(name, row[name]) for name in names] for row in rows]
        )


def _cell(name: str, value: Any) -> Any:
    # A row is parked unsent if no event exists for it.
    return "not sent" if name == "attempts" and not value else value


def _since(text: str) -> datetime:
    """Parses a time, or a duration before now."""
    try:
        return _time(text)
    except argparse.ArgumentTypeError as not_a_time:
        try:
            ago = duration(text)
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(f"{not_a_time}, or a duration such as 24h") from None
    try:
        return datetime.now(timezone.utc) - timedelta(seconds=ago)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text} ago is before the calendar begins") from None


def _time(text: str) -> datetime:
    try:
        # Python 3.10 does not know the Z, and no version a date with a timezone.
        time = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        time = None
    if time is None or (text.endswith("Z") and time.tzinfo is not None):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-05-01T06:00:00Z")
    if text.endswith("Z"):
        time = time.replace(tzinfo=timezone.utc)
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no timezone; add one, such as Z for UTC")
    return time
