"""The command `jobrota top`: a live view of a ledger and its VMs in a terminal."""

from __future__ import annotations

import argparse
import sys

from jobrota._native import settings_lookup
from jobrota.commands import vms
from jobrota.commands.durations import duration
from jobrota.commands.ledger import add_ledger, open_ledger
from jobrota.errors import InvalidInputError, MissingPackageError

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "show a live view: pending rows, rows in flight, recent outcomes and VMs; q ends it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_ledger(parser)
    vms.add_source(parser)
    parser.add_argument("--every", type=_every, default=1.0, metavar="TIME", help="time between two refreshes")
    parser.add_argument(
        "--recent", type=_recent, default=3600.0, metavar="TIME", help="how far back outcomes are shown"
    )
    parser.set_defaults(vms=[])


def _every(text: str) -> float:
    return _between(text, 0.01, 86_400)


def _recent(text: str) -> float:
    return _between(text, 1, 365 * 86_400)


def _between(text: str, least: float, most: float) -> float:
    seconds = duration(text)
    if not least <= seconds <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a duration from {least:g} to {most:,} seconds")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Shows the view until the user ends it; returns 143 after SIGTERM."""
    try:
        from rich.console import Console

        from jobrota.commands.top_live import watch
    except ImportError as error:
        raise MissingPackageError(
            "top needs rich: install the package of the extra 'progress': pip install 'rich>=13.2'"
        ) from error
    console = Console()
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or console.is_dumb_terminal:
        raise InvalidInputError(
            "top needs a terminal that moves its cursor: for a file or a program, use jobrota autosys status --json"
        )
    has_vms = arguments.inventory or settings_lookup("inventory")
    selector = vms.selector(arguments) if has_vms else None
    return watch(open_ledger(arguments), selector, console, every=arguments.every, recent=arguments.recent)
