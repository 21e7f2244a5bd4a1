"""The command `jobrota autosys deliver`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from jobrota._native import settings_lookup
from jobrota.commands import vms
from jobrota.commands.durations import duration
from jobrota.commands.ledger import add_ledger, add_table, open_ledger
from jobrota.commands.output import add_output, complain, explain, output_lost, print_json
from jobrota.commands.tables import counted
from jobrota.commands.webhook import add_pending_option, add_webhook, alerts
from jobrota.errors import InvalidInputError
from jobrota.text import printable, timestamp

if TYPE_CHECKING:
    from jobrota._native import DeliveryReport, RoundRobinSelector

__all__ = ["EXIT_LEASE_HELD", "TEXT", "add_arguments", "run"]

TEXT = "run one delivery cycle"
EXIT_LEASE_HELD = 3
_ROWS_NAMED = 5


def add_arguments(deliver: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_ledger(deliver)
    add_table(deliver)
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
    add_webhook(deliver)
    add_pending_option(deliver)

    transport = deliver.add_argument_group("transport")
    kind = transport.add_mutually_exclusive_group()
    kind.add_argument(
        "--transport",
        metavar="KIND",
        help='"sendevent", "https://host:9443", "ssh", "run-command", a callable as "module:function", or a path of '
        'sendevent; then options such as "ssh user=autosys key_file=/etc/jobrota/id" (default: JOBROTA_TRANSPORT, '
        "jobrota.toml, else sendevent)",
    )
    kind.add_argument("--sendevent", metavar="PATH", help="AutoSys's sendevent program: short for --transport PATH")
    transport.add_argument("--env-file", metavar="FILE", help="a shell file that sets up AutoSys's variables")
    vms.add_source(transport)
    vms.add_probe_kind(transport)
    deliver.set_defaults(vms=[])


def run(arguments: argparse.Namespace) -> int:
    """Runs one cycle, or one after the other; returns 1 if a row failed, and 3 if another process holds the lease."""
    from jobrota._native import AutosysUpdater
    from jobrota.autosys import CHANGE_STATUS
    from jobrota.awaiting import run_in_order
    from jobrota.signals import Terminated, terminable
    from jobrota.tracing import DeliverySpans

    ledger = open_ledger(arguments)
    updater = AutosysUpdater(
        ledger,
        _transport(arguments),
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
    with alerts(arguments, ledger) as watched, DeliverySpans(ledger, arguments.table) as spans:

        def show(report: DeliveryReport) -> None:
            try:
                _show_cycle(report, arguments.json)
                sys.stdout.flush()
            except BrokenPipeError:
                raise
            except OSError as error:  # such as a full disk below a log: events are delivered all the same
                output_lost(error)
            explain(arguments, _reasons(report, arguments.fail_on))
            watched.cycle(report, arguments.table)
            spans.cycle(report)

        if arguments.every is not None:
            last = updater.run_forever(arguments.every, on_report=show)
            return 0 if last is None else _exit_code(last, arguments.fail_on)
        try:
            with terminable():
                report, interrupt = run_in_order(updater.run_async)
        except Terminated as stop:
            spans.error(stop)
            reason = f" ({stop.__cause__})" if stop.__cause__ else ""
            complain(f"stopped by SIGTERM{reason}; the next cycle continues")
            return 1
        show(report)
        if isinstance(interrupt, Terminated):
            complain("stopped by SIGTERM; the next cycle continues")
        elif interrupt is not None:
            raise interrupt
        return _exit_code(report, arguments.fail_on)


def _transport(arguments: argparse.Namespace) -> Any:
    """Returns the transport of the options, else of the settings, else the `sendevent` program of the PATH."""
    from jobrota.autosys import SendEvent
    from jobrota.transport_settings import configured_transport, transport_from_text

    def selector() -> RoundRobinSelector:
        return vms.selector(arguments)

    more = {"env_file": arguments.env_file} if arguments.env_file else {}
    if arguments.sendevent is not None:
        transport = SendEvent(program=arguments.sendevent, **more)
    elif arguments.transport is not None:
        transport = transport_from_text(arguments.transport, selector, **more)
    else:
        transport = configured_transport(selector, **more) or SendEvent(program="sendevent", **more)
    # Of the other transports, the file is on the VM.
    if arguments.env_file and isinstance(transport, SendEvent) and not os.access(arguments.env_file, os.R_OK):
        raise InvalidInputError(
            f"the file {arguments.env_file}, which --env-file names, cannot be read: check that it exists, and "
            "that this user may read it"
        )
    return transport


def _show_cycle(report: DeliveryReport, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        names = ["delivered", "failed", "parked", "unknown", "pending"]
        more = ["superseded", "expired", "recovered", "waiting", "held_back"]
        counts = [f"{getattr(report, name)} {name}" for name in names]
        counts += [f"{getattr(report, name)} {name.replace('_', ' ')}" for name in more if getattr(report, name)]
        print(("dry run: " if report.dry_run else "") + ", ".join(counts), flush=True)
        for line in _failure_lines(report):
            print(line)
        for planned in report.planned:
            print(f"  would send: {printable(planned['action'])}")
        if report.next_try:
            print(f"  the first of the waiting rows is due at {timestamp(report.next_try, 'seconds')}", flush=True)
        if report.snoozed_until:
            print(f"  nothing is sent before {timestamp(report.snoozed_until, 'seconds')}", flush=True)
    if report.lease_held_by:
        complain(
            f"{report.lease_held_by} delivers, or its lease has not expired yet; nothing was done: the next cycle "
            "delivers once that process is done; if it died, once its lease has expired (after 30 s by default)"
        )


def _reasons(report: DeliveryReport, fail_on: str) -> list[str]:
    """Returns why the exit code is 1."""
    if fail_on == "parked" and report.parked and not any(row["outcome"] == "parked" for row in report.failures):
        earlier = [f"parked earlier: {counted(report.parked, 'row')}, see jobrota autosys parked"]
        return _failure_lines(report) + earlier
    return _failure_lines(report)


def _failure_lines(report: DeliveryReport) -> list[str]:
    """Returns a line for each reason. Rows that share it share the line: an outage has one reason for thousands."""
    rows: dict[tuple[str, str], list[str]] = {}
    for failure in report.failures:
        row = f"{printable(failure['job_id'])} {printable(failure['status'])}"
        rows.setdefault((failure["outcome"], printable(failure["detail"])), []).append(row)
    would_be = "would be " if report.dry_run else ""
    lines = []
    for (outcome, reason), names in rows.items():
        named = ", ".join(names[:_ROWS_NAMED])
        if len(names) > _ROWS_NAMED:
            named = f"{counted(len(names), 'row')} ({named}, …; --json prints all)"
        lines.append(f"  {would_be}{outcome}: {named}: {reason}")
    return lines


def _exit_code(report: DeliveryReport, fail_on: str) -> int:
    if report.lease_held_by:
        return EXIT_LEASE_HELD
    # A parked row waits for an operator. It does not fail each run of a scheduled task until then.
    parked_now = any(failure["outcome"] == "parked" for failure in report.failures)
    parked = report.parked if fail_on == "parked" else parked_now
    return 1 if report.failed or report.unknown or parked else 0
