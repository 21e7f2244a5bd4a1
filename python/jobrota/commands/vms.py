"""The command `jobrota vms`: shows the shared state of VMs, and takes VMs out of rotation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobrota._native import Inventory, RoundRobinSelector, setting_missing, settings_lookup
from jobrota.commands.durations import positive_duration
from jobrota.commands.output import explain, named_file, print_json
from jobrota.commands.tables import print_table
from jobrota.errors import InvalidInputError

TEXT = "show which VMs are up, drained or in use, and take VMs out of rotation"


def add_source(parser: Any) -> None:
    """Adds the arguments for the VMs and their cursor."""
    parser.add_argument(
        "--inventory",
        metavar="FILE",
        help="inventory file: .json, .yaml or .csv (default: JOBROTA_INVENTORY, jobrota.toml)",
    )
    parser.add_argument(
        "--cursor",
        default="auto",
        metavar="DIR",
        help='shared cursor; "process": none; "auto": beside the ledger of the settings, else in the state directory',
    )


def add_probe(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for probes."""
    add_probe_kind(parser)
    parser.add_argument("--timeout", type=positive_duration, default=1.0, metavar="TIME", help="time allowed per VM")


def add_probe_kind(parser: Any) -> None:
    """Adds the argument for the kind of probe alone."""
    parser.add_argument(
        "--probe",
        action="append",
        metavar="PROBE",
        help='"icmp", "tcp:22", …; can be repeated: one must succeed (default: JOBROTA_PROBE, jobrota.toml, else auto)',
    )


def selector(arguments: argparse.Namespace) -> RoundRobinSelector:
    """Returns the selector that the arguments describe."""
    source = arguments.inventory or settings_lookup("inventory")
    if not source and not arguments.vms:
        raise setting_missing("inventory", "no VM is given: name them as arguments, or use --inventory FILE")
    with named_file():
        vms: list[dict[str, Any]] = Inventory(source).vms if source else []
    if arguments.vms:
        known = {vm["name"]: vm for vm in vms}
        unknown = [name for name in arguments.vms if name not in known] if arguments.inventory else []
        if unknown:
            raise InvalidInputError(f"the inventory {source} does not name {', '.join(unknown)}")
        vms = [known.get(name) or {"name": name} for name in arguments.vms]
    probe = getattr(arguments, "probe", None) or settings_lookup("probe") or "auto"
    return RoundRobinSelector(vms, cursor=arguments.cursor, probe=probe, timeout=getattr(arguments, "timeout", 1.0))


def _shared_selector(arguments: argparse.Namespace) -> RoundRobinSelector:
    chosen = selector(arguments)
    if chosen.cursor == "process":
        raise InvalidInputError(
            "a cursor of this process ends with the command: give --cursor DIR; nothing was changed"
        )
    if "://" not in chosen.cursor and not Path(chosen.cursor, "vm_selections").expanduser().exists():
        print(
            f"warning: no process has used the cursor {chosen.cursor} yet, and it is made now: check the directory",
            file=sys.stderr,
        )
    return chosen


def status(arguments: argparse.Namespace) -> int:
    """Prints which VMs are drained, up and in use, and how often each was selected."""
    chosen = selector(arguments)
    rows = chosen.state().to_pylist()
    for row, turns in zip(rows, chosen.distribution().to_pylist(), strict=True):
        row |= {name: turns[name] for name in ("selections", "share", "last_selected")}
    _show(rows, arguments)
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Probes all VMs and prints the results; returns 1 if one does not answer."""
    rows = selector(arguments).check().to_pylist()
    _show(rows, arguments)
    explain(arguments, (f"{row['vm']} is not reachable: {row['reason']}" for row in rows if not row["reachable"]))
    return 0 if all(row["reachable"] for row in rows) else 1


def drain(arguments: argparse.Namespace) -> int:
    """Takes the VMs out of rotation."""
    chosen = _shared_selector(arguments)
    text = f"is drained: no process that uses {chosen.cursor} selects it until it is restored"
    return _changed(chosen.drain, arguments, text, drained=True)


def restore(arguments: argparse.Namespace) -> int:
    """Puts the VMs back into rotation."""
    return _changed(_shared_selector(arguments).restore, arguments, "is back in rotation", drained=False)


def _changed(change: Callable[[str], None], arguments: argparse.Namespace, text: str, *, drained: bool) -> int:
    for vm in arguments.vms:
        change(vm)
        if not arguments.json:
            print(f"{vm} {text}")
    if arguments.json:
        print_json([{"vm": vm, "drained": drained} for vm in arguments.vms])
    return 0


def _show(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(rows)
        return
    print_table(
        [name.replace("_", " ") for name in rows[0]], [[_cell(value) for value in row.values()] for row in rows]
    )


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else value
