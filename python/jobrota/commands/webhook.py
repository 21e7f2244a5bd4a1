"""The options of the commands that send alerts."""

from __future__ import annotations

import argparse
import os
import sys

from jobrota._native import JobLedger
from jobrota.commands.durations import duration
from jobrota.errors import InvalidInputError
from jobrota.webhook import FORMATS, VARIABLE, Alerts, Webhook

__all__ = ["add_pending_option", "add_webhook", "alerts"]


def add_webhook(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the options of each command that sends alerts."""
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help="post alerts to this URL, which is a secret: better file:PATH or env:NAME, which say where it is "
        f"(default: {VARIABLE})",
    )
    parser.add_argument(
        "--webhook-format", choices=FORMATS, default="auto", help="what is posted; auto looks at the host of the URL"
    )


def add_pending_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of deliveries."""
    parser.add_argument(
        "--webhook-pending", type=duration, default=3600.0, metavar="TIME", help="alert of a row pending for longer"
    )


def alerts(arguments: argparse.Namespace, ledger: JobLedger | None = None) -> Alerts:
    """Returns the alerts that the options ask for. A webhook that cannot be used is reported, and is not in the way."""
    if arguments.webhook is None and not os.environ.get(VARIABLE):
        return Alerts(None)
    try:
        webhook = Webhook(
            arguments.webhook,
            format=arguments.webhook_format,
            pending_over=getattr(arguments, "webhook_pending", 3600.0),
        )
    except InvalidInputError as error:
        print(f"jobrota: no alert is sent: {error}", file=sys.stderr, flush=True)
        return Alerts(None)
    return Alerts(webhook, ledger)
