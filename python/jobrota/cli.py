"""The command `jobrota`.

Exit codes: 0 success, 1 something failed in this run, 2 usage or settings, 3 another process holds the lease;
docs/command.md has the table. On 0 `main` returns and does not raise SystemExit, which wheel tasks on Databricks count
as a failure.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jobrota._native import __version__
from jobrota.commands.deliver import EXIT_LEASE_HELD
from jobrota.commands.durations import positive_duration
from jobrota.commands.output import (
    add_json,
    add_output,
    complain,
    discard_output,
    explain,
    narrated,
    output_lost,
    prepare_streams,
    print_json,
    silenced,
)
from jobrota.errors import InvalidInputError, JobrotaError, LeaseHeldError, UnsupportedError
from jobrota.signals import Terminated

if TYPE_CHECKING:
    from pathlib import Path

    from jobrota._native import Sandbox

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, or with the process's own arguments.

    Args:
        argv: The arguments after the command's name.

    Raises:
        SystemExit: With the exit code, unless it is 0.
    """
    prepare_streams()
    try:
        code = _run(argv)
        sys.stdout.flush()
    except JobrotaError as error:
        hint = " (a retry may help)" if error.retryable else ""
        complain(f"{error}{hint}")
        code = _exit_code(error)
    except (KeyboardInterrupt, Terminated) as interrupt:
        # The error of an interrupted comparison names the file with the results so far.
        complain(f"interrupted: {interrupt.__cause__}" if interrupt.__cause__ else "interrupted")
        code = 143 if isinstance(interrupt, Terminated) else 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        discard_output()
        code = 141
    except OSError as error:
        if error.filename is not None:
            raise
        output_lost(error)  # errors of files and sockets are a JobrotaError
        code = 1
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        code = 141  # rich has found it
    if code:
        raise SystemExit(code)


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse ends --help and --version this way too
        if stop.code:
            raise
        return 0
    with silenced(arguments):
        code: int = arguments.run(arguments)
    return code


def _exit_code(error: JobrotaError) -> int:
    if isinstance(error, LeaseHeldError):
        return EXIT_LEASE_HELD
    # The same command fails again until the user changes an option, a setting or what is installed.
    return 2 if isinstance(error, InvalidInputError | UnsupportedError) else 1


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command, with all its commands."""
    parser = argparse.ArgumentParser(
        prog="jobrota",
        description="Fair VM selection, a lossless job ledger for AutoSys and SAS Viya comparisons with evidence.",
    )
    parser.add_argument("--version", action="version", version=f"jobrota {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_init(commands)
    _add_demo(commands)
    _add_compare(commands)
    _add_report(commands)
    _add_viya(commands)
    _add_select(commands)
    _add_vms(commands)
    _add_autosys(commands)
    _add_top(commands)
    _add_ledger(commands)
    _add_migrate(commands)
    _add_doctor(commands)
    _add_sandbox(commands)
    _add_completion(commands, parser)
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default, unless there is none or the text describes it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        absent = action.default is None or action.default is False or action.default == []
        return action.help if absent or "(default" in (action.help or "") else super()._get_help_string(action)


def _command(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, formatter_class=_Help)
    parser.set_defaults(run=run)
    return parser


def _add_init(commands: Any) -> None:
    from jobrota.commands import init

    init.add_arguments(_command(commands, "init", init.TEXT, init.run))


def _add_demo(commands: Any) -> None:
    parser = _command(commands, "demo", "run all four parts against the local sandbox", _demo)
    parser.add_argument(
        "--speed", type=_positive_float, default=150.0, metavar="N", help="sandbox seconds per real second"
    )
    parser.add_argument("--ledger", metavar="DIR", help="directory of the ledger (default: a new one in the results)")
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="directory of the result JSON")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="run only the first N of the 54 jobs")
    add_output(parser)


def _demo(arguments: argparse.Namespace) -> int:
    _sandbox_type()
    from jobrota.demo import run_demo

    with narrated(arguments):
        done = run_demo(
            speed=arguments.speed, ledger=arguments.ledger, results_dir=arguments.results_dir, jobs=arguments.jobs
        )
    if arguments.json:
        print_json(done)
    broken = [promise for promise, holds in done["promises"].items() if not holds]
    explain(arguments, (f"the promise did not hold: {promise}" for promise in broken))
    return 1 if broken else 0


def _add_compare(commands: Any) -> None:
    from jobrota.commands import compare

    parser = _command(commands, "compare", compare.TEXT, compare.run)
    compare.add_arguments(parser, _positive, _not_negative, _positive_float, _number)


def _add_report(commands: Any) -> None:
    from jobrota.commands import report

    report.add_arguments(_command(commands, "report", report.TEXT, report.run))


def _add_viya(commands: Any) -> None:
    from jobrota.commands import viya

    group = commands.add_parser("viya", help=viya.TEXT, description=viya.TEXT)
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")
    viya.add_arguments(_command, actions)


def _add_select(commands: Any) -> None:
    from jobrota.commands import vms

    parser = _command(commands, "select", "select the next reachable VM in turn", _select)
    parser.add_argument("vms", nargs="*", metavar="VM", help="names or addresses; none means the whole inventory")
    vms.add_source(parser)
    vms.add_probe(parser)
    add_output(parser)


def _select(arguments: argparse.Namespace) -> int:
    from jobrota.commands import vms

    selection = vms.selector(arguments).select()
    if arguments.json:
        names = ("vm", "ip_address", "nic_name", "probe", "rtt_ms", "skipped")
        print_json({name: getattr(selection, name) for name in names})
    else:
        print(f"Selected VM: {selection.vm} (IP: {selection.ip_address})")
    return 0


def _add_vms(commands: Any) -> None:
    from jobrota.commands import vms

    group = commands.add_parser("vms", help=vms.TEXT, description=vms.TEXT)
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")
    status = _command(
        actions, "status", "show which VMs are drained, up and in use, and how often each was selected", vms.status
    )
    check = _command(actions, "check", "probe all VMs without changing the turns", vms.check)
    drain = _command(actions, "drain", "take VMs out of rotation for every process that uses the cursor", vms.drain)
    restore = _command(actions, "restore", "put drained VMs back into rotation", vms.restore)
    for action in (status, check, drain, restore):
        many = "*" if action in (status, check) else "+"
        action.add_argument("vms", nargs=many, metavar="VM", help="names or addresses")
        vms.add_source(action)
    vms.add_probe(check)
    for action in (status, check, drain, restore):
        add_output(action, "one JSON list")


def _add_autosys(commands: Any) -> None:
    from jobrota.commands import autosys

    group = commands.add_parser("autosys", help=autosys.TEXT, description=autosys.TEXT)
    autosys.add_arguments(_command, group.add_subparsers(title="actions", required=True, metavar="ACTION"))


def _add_top(commands: Any) -> None:
    from jobrota.commands import top

    top.add_arguments(_command(commands, "top", top.TEXT, top.run))


def _add_ledger(commands: Any) -> None:
    from jobrota.commands import ledger

    group = commands.add_parser("ledger", help=ledger.TEXT, description=ledger.TEXT)
    ledger.add_arguments(_command, group.add_subparsers(title="actions", required=True, metavar="ACTION"))


def _add_migrate(commands: Any) -> None:
    from jobrota.commands import migrate

    migrate.add_arguments(_command(commands, "migrate", migrate.TEXT, migrate.run))


def _add_doctor(commands: Any) -> None:
    from jobrota.commands import doctor

    parser = _command(commands, "doctor", doctor.TEXT, doctor.run)
    doctor.add_arguments(parser)
    parser.add_argument("--timeout", type=positive_duration, default=1.0, metavar="TIME", help="time per probe of a VM")


def _add_sandbox(commands: Any) -> None:
    parser = _command(commands, "sandbox", "start a local SAS Viya and AutoSys; Ctrl-C ends them", _sandbox)
    parser.add_argument(
        "--speed", type=_positive_float, default=1.0, metavar="N", help="sandbox seconds per real second"
    )
    parser.add_argument("--vms", type=_positive, default=4, metavar="N", help="VMs in the inventory")
    parser.add_argument("--vms-down", type=_not_negative, default=1, metavar="N", help="VMs that do not answer")
    add_json(parser, "one JSON object when it runs")


def _sandbox_type() -> type[Sandbox]:
    import jobrota

    try:
        return jobrota.Sandbox
    except AttributeError as error:
        raise UnsupportedError(str(error)) from error


def _sandbox(arguments: argparse.Namespace) -> int:
    import signal

    sandbox_type = _sandbox_type()
    # A pipe and no lock: a handler that interrupts the holder of a lock and waits for the same lock would never return.
    stopped, stop = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(stop, b".") and None)
    with sandbox_type(vms=arguments.vms, vms_down=arguments.vms_down, speed=arguments.speed) as sandbox:
        # Only the sandbox's own process knows the addresses of the names.
        inventory = sandbox.tokens.with_name("vms.json")
        inventory.write_text(json.dumps(sandbox.inventory.vms), encoding="utf-8")
        _show_sandbox(sandbox, inventory, arguments.json)
        os.read(stopped, 1)
    return 0


def _show_sandbox(sandbox: Sandbox, inventory: Path, as_json: bool) -> None:
    user, password = sandbox.autosys_credentials
    if as_json:
        autosys = {"url": sandbox.autosys_url, "user": user, "password": password, "sendevent": sandbox.sendevent}
        viya = {"url": sandbox.viya_url, "tokens": sandbox.tokens, "jobs": sandbox.jobs, "time_scale": sandbox.speed}
        vms = {"names": sandbox.inventory.names, "inventory": inventory, "probe": sandbox.probe}
        print_json({"viya": viya, "autosys": autosys, "vms": vms})
        return
    print(f"SAS Viya    {sandbox.viya_url}")
    print(f"  tokens    {sandbox.tokens}")
    print(f"  jobs      {sandbox.jobs}")
    print(f"  option    --time-scale {sandbox.speed:.15g} (of jobrota compare)")
    print(f"AutoSys     {sandbox.autosys_url}")
    print(f"  user      {user}, password {password}")
    print(f"  sendevent {sandbox.sendevent}")
    print(f"VMs         {', '.join(sandbox.inventory.names)}")
    print(f"  inventory {inventory}")
    print(f"  probe     {sandbox.probe}")
    print("Ctrl-C ends it.", flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def _add_completion(commands: Any, whole: argparse.ArgumentParser) -> None:
    from jobrota.commands import completion

    completion.add_arguments(_command(commands, "completion", completion.TEXT, completion.run), whole)


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return number


def _positive_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
