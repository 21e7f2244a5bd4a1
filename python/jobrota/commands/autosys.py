"""The command `jobrota autosys`: delivers pending rows, shows the state of deliveries, and settles rows manually."""

from __future__ import annotations

import argparse
import math
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from jobrota._native import JobLedger, setting_missing, settings_lookup
from jobrota.commands.durations import checked_duration, duration
from jobrota.commands.output import add_output, print_json
from jobrota.commands.tables import print_table, printable, timestamp

if TYPE_CHECKING:
    from arro3.core import Table

    from jobrota._native import DeliveryReport

TEXT = "deliver the ledger's rows to AutoSys, show the state of deliveries, and settle rows manually"

_AGES = {"under_15m": "under 15 min", "15m_to_1h": "15 min to 1 h", "1h_to_24h": "1 h to 24 h", "over_24h": "over 24 h"}
EXIT_LEASE_HELD = 3
_FAILURES_SHOWN = 5


def add_arguments(command: Any, actions: Any) -> None:
    """Adds the actions, each made by `command`."""
    deliver = command(actions, "deliver", "run one delivery cycle", _deliver)
    _add_ledger(deliver)
    _add_table(deliver)
    deliver.add_argument("--sendevent", default="sendevent", metavar="PATH", help="AutoSys's sendevent program")
    deliver.add_argument("--env-file", metavar="FILE", help="a shell file that sets up AutoSys's variables")
    deliver.add_argument(
        "--every",
        metavar="TIME",
        help='run a cycle at this interval until SIGTERM, such as "15m"; at least "1ms"',
    )
    deliver.add_argument(
        "--order",
        choices=("per_job", "latest", "none"),
        default="per_job",
        help="a job's rows one by one, only its newest row, or any order",
    )
    deliver.add_argument("--concurrency", type=int, default=8, metavar="N", help="sends at a time")
    deliver.add_argument("--max-attempts", type=int, metavar="N", help="park a row after N failed attempts")
    deliver.add_argument(
        "--backoff", type=duration, metavar="TIME", help='first waiting time of a row that failed, such as "1m"'
    )
    deliver.add_argument("--rate", type=float, metavar="N", help="at most N events a second")
    deliver.add_argument(
        "--stale-after",
        type=duration,
        metavar="TIME",
        help='acknowledge rows older than this, such as "12h", without sending them',
    )
    deliver.add_argument(
        "--snooze",
        action="append",
        metavar="WINDOW",
        help='send nothing in this window: "02:00-03:30 Europe/Berlin"; can be repeated',
    )
    deliver.add_argument(
        "--first", action="append", metavar="JOB", help="deliver this job before any other is sent; can be repeated"
    )
    deliver.add_argument("--confirm", action="store_true", help="read each status back")
    deliver.add_argument("--dry-run", action="store_true", help="send nothing, and print what would be sent")
    deliver.add_argument(
        "--fail-on",
        choices=("failed", "parked"),
        default="failed",
        help="what ends with exit code 1: a row that failed, was parked or is in doubt in this run; with parked, also "
        "a row that an earlier run parked",
    )
    add_output(deliver, "one JSON object a cycle")

    status = command(actions, "status", "show what is pending, for how long, and the success of deliveries", _status)
    _add_ledger(status)
    status.add_argument(
        "--since", type=_since, metavar="WHEN", help='count attempts since a time, or since "24h" ago (default)'
    )
    add_output(status).add_argument("--prometheus", action="store_true", help="print text for Prometheus")

    parked = command(actions, "parked", "list the parked rows", _parked)
    _add_ledger(parked)
    _add_table(parked)
    add_output(parked, "one JSON list")

    redrive = command(actions, "redrive", "return parked rows to delivery", _redrive)
    _add_ledger(redrive)
    _add_table(redrive)
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
        _add_ledger(settle)
        _add_table(settle)
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
    _add_ledger(unnotified)
    unnotified.add_argument(
        "--older-than",
        type=checked_duration,
        default="1h",
        metavar="TIME",
        help='minimum time pending: "90s", "15m", "1h", "2d"',
    )
    add_output(unnotified, "one JSON list")


def _add_ledger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ledger", metavar="ROOT", help="ledger (default: JOBROTA_LEDGER, jobrota.toml)")


def _add_table(parser: argparse.ArgumentParser) -> None:
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


def _deliver(arguments: argparse.Namespace) -> int:
    from jobrota._native import AutosysUpdater
    from jobrota.autosys import CHANGE_STATUS, SendEvent
    from jobrota.signals import Terminated, terminable

    updater = AutosysUpdater(
        open_ledger(arguments),
        SendEvent(program=arguments.sendevent, env_file=arguments.env_file),
        source=arguments.table,
        mapping=settings_lookup("mapping") or CHANGE_STATUS,
        max_attempts=arguments.max_attempts,
        order=arguments.order,
        concurrency=arguments.concurrency,
        backoff=arguments.backoff,
        rate=arguments.rate,
        stale_after=arguments.stale_after,
        snooze=arguments.snooze,
        first=arguments.first,
        confirm=arguments.confirm,
        dry_run=arguments.dry_run,
    )
    if arguments.every is not None:
        last = updater.run_forever(arguments.every, on_report=lambda report: _show_cycle(report, arguments.json))
        return 0 if last is None else _exit_code(last, arguments.fail_on)
    try:
        with terminable():
            report = updater.run()
    except Terminated:
        print("jobrota: stopped by SIGTERM; what was sent is recorded, and the next cycle continues", file=sys.stderr)
        return 1
    _show_cycle(report, arguments.json)
    return _exit_code(report, arguments.fail_on)


def _show_cycle(report: DeliveryReport, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        names = ["delivered", "failed", "parked", "unknown", "pending"]
        more = ["superseded", "expired", "recovered", "waiting", "held_back"]
        counts = [f"{getattr(report, name)} {name}" for name in names]
        counts += [f"{getattr(report, name)} {name.replace('_', ' ')}" for name in more if getattr(report, name)]
        print(("dry run: " if report.dry_run else "") + ", ".join(counts), flush=True)
        for failure in report.failures[:_FAILURES_SHOWN]:
            row = f"{printable(failure['job_id'])} {printable(failure['status'])}"
            would_be = "would be " if report.dry_run else ""
            print(f"  {would_be}{failure['outcome']}: {row}: {printable(failure['detail'])}")
        if (rest := len(report.failures) - _FAILURES_SHOWN) > 0:
            print(f"  and {rest:,} more: --json prints all")
        for planned in report.planned:
            print(f"  would send: {printable(planned['action'])}")
        if report.next_try:
            print(f"  the first of the waiting rows is due at {timestamp(report.next_try, 'seconds')}", flush=True)
        if report.snoozed_until:
            print(f"  nothing is sent before {timestamp(report.snoozed_until, 'seconds')}", flush=True)
    if report.lease_held_by:
        print(
            f"jobrota: {report.lease_held_by} delivers, or its lease has not expired yet; nothing was done",
            file=sys.stderr,
            flush=True,
        )


def _exit_code(report: DeliveryReport, fail_on: str) -> int:
    if report.lease_held_by:
        return EXIT_LEASE_HELD
    # A parked row waits for an operator. It does not fail each run of a scheduled task until then.
    parked_now = any(failure["outcome"] == "parked" for failure in report.failures)
    parked = report.parked if fail_on == "parked" else parked_now
    return 1 if report.failed or report.unknown or parked else 0


def _status(arguments: argparse.Namespace) -> int:
    summary = open_ledger(arguments).summary(since=arguments.since)
    if arguments.json:
        print_json(summary.to_dict())
        return 0
    if arguments.prometheus:
        print(summary.to_prometheus(), end="")
        return 0
    print(f"ledger {summary.root}")
    rows = []
    for name, counts in (("autosys_job_log", summary.executions), ("job_notifications", summary.notifications)):
        oldest = counts["oldest_pending"]
        held = [counts[key] for key in ("rows", "pending", "acknowledged", "other_flags")]
        rows.append([name, *held, oldest and timestamp(oldest, "seconds")])
    print_table(("table", "rows", "pending", "acknowledged", "other flags", "oldest pending"), rows)
    if summary.pending:
        print(f"\npending in {summary.source}, by age and by status")
        counted = [(_AGES.get(age, age), count) for age, count in summary.pending_by_age.items()]
        print_table(("pending for", "rows"), counted)
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
    rows = _rows(open_ledger(arguments).parked(table=arguments.table))
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
        for place, row in enumerate(_rows(table))
        if row["file_name"] == arguments.file and arguments.at in (None, row[at])
    ]
    if not matches:
        what = f"file {arguments.file} and job {arguments.job}" + (f" at {arguments.at}" if arguments.at else "")
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
        print_json(row | {"settled": done, "identical_rows_pending": alike})
        return 0
    print(f"{done}: {printable(row['job_id'])} {printable(row['status'])} of {printable(row[at])}")
    if alike:
        print(f"{alike} identical {'row is' if alike == 1 else 'rows are'} still pending")
    return 0


def _unnotified(arguments: argparse.Namespace) -> int:
    rows = _rows(open_ledger(arguments).executions_without_notification(older_than=arguments.older_than))
    _show(rows, arguments, f"no execution is without a notification for {arguments.older_than} or longer")
    return 0


def counted(number: int, thing: str) -> str:
    """Returns a number and its noun, such as "1 row" and "2 rows"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _rows(table: Table) -> list[dict[str, Any]]:
    columns = [table[name].to_pylist() for name in table.column_names]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


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
        # Python 3.10 does not know the Z.
        time = datetime.fromisoformat(text.removesuffix("Z") + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-05-01T06:00:00Z") from None
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no timezone; add one, such as Z for UTC")
    return time
