"""The command `jobrota doctor`."""

from __future__ import annotations

import argparse

from jobrota.commands.output import add_output, explain, named_file, print_json

TEXT = "check what works on this machine, and say what to do about the rest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("vms", nargs="*", metavar="VM", help="VMs to probe: names of the inventory, or addresses")
    parser.add_argument(
        "--inventory", metavar="FILE", help="probe the VMs of this file (default: JOBROTA_INVENTORY, jobrota.toml)"
    )
    parser.add_argument("--ledger", metavar="ROOT", help="ledger (default: JOBROTA_LEDGER, jobrota.toml)")
    parser.add_argument(
        "--probe", action="append", default=[], metavar="PROBE",
        help='another probe to try on each VM, such as "tcp:443"; can be repeated',
    )  # fmt: skip
    parser.add_argument("--tokens", metavar="FILE", help="token file of SAS Viya (default: data/sas_tokens.json)")
    parser.add_argument(
        "--network", action="store_true", help="send requests beyond this machine too: to Azure's metadata service"
    )
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns 1 if something that is needed failed."""
    from jobrota.checkup import doctor

    with named_file():
        report = doctor(
            arguments.vms,
            inventory=arguments.inventory,
            ledger=arguments.ledger,
            probes=arguments.probe,
            timeout=arguments.timeout,
            network=arguments.network,
            tokens=arguments.tokens,
        )
    if not report.ok:
        failed = [check for check in report.checks if check.status == "failed"]
        explain(arguments, (f"{check.name}: {check.detail}; {check.advice}" for check in failed))
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(report)
    return 0 if report.ok else 1
