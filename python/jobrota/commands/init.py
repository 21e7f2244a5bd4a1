"""The command `jobrota init`: writes a settings file whose comments explain each setting."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from jobrota.commands.output import add_output, print_json
from jobrota.errors import InvalidInputError, StorageError
from jobrota.files import replace

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "write a jobrota.toml with a comment for each setting"

_HEAD = """\
# Settings of jobrota. An argument comes before the environment, and the environment before this file.
# jobrota reads this file in the working directory, or where the variable JOBROTA_CONFIG says.
# Remove the "# " in front of a setting to use it. `jobrota doctor` shows what is set, and from where.
"""
# The name of a setting, what its comment says, and an example.
_SETTINGS = (
    ("ledger", "Directory or URI of the ledger's tables.", "abfss://container@account.dfs.core.windows.net/path"),
    ("inventory", "File with the VMs: .json, .yaml or .csv.", "vms.yaml"),
    ("probe", "How a VM is checked: icmp, tcp:22 or http://{ip}:8080/health. Default: auto.", "tcp:22"),
    ("base_url", "Address of SAS Viya.", "https://viya.example.com"),
    ("mapping", "Event that a status becomes: CHANGE_STATUS (default) or STARTJOB.", "STARTJOB"),
    (
        "source",
        "Table that autosys_update_runner sends from: job_notifications (default) or autosys_job_log.",
        "autosys_job_log",
    ),
    (
        "transport",
        "How events reach AutoSys: the path of sendevent, an address of its web services, ssh, run-command or\n"
        "# module:function, each with options as NAME=VALUE. A secret is never an option: write password_env=NAME.",
        "ssh user=autosys key_file=/etc/jobrota/id_ed25519",
    ),
)
_GIVEN = ("ledger", "inventory", "base_url")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--output", "-o", default="jobrota.toml", metavar="FILE", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--ledger", metavar="ROOT", help="set the ledger")
    parser.add_argument("--inventory", metavar="FILE", help="set the inventory")
    parser.add_argument("--base-url", metavar="URL", help="set the address of SAS Viya")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the settings file."""
    path = Path(arguments.output)
    if path.exists() and not arguments.force:
        raise InvalidInputError(f"{path} exists and was not changed: name another file with -o, or use --force")
    given = {name: value for name in _GIVEN if (value := getattr(arguments, name)) is not None}
    try:
        replace(path, _text(given))
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}): name another file with -o") from error
    if arguments.json:
        print_json({"path": path, "settings": given})
        return 0
    print(f"settings file: {path}")
    if path.name != "jobrota.toml" or path.resolve().parent != Path.cwd():
        print(f"to use it, set JOBROTA_CONFIG={path.resolve()}, or copy it to jobrota.toml in the working directory")
    return 0


def _text(given: dict[str, str]) -> str:
    parts = [_HEAD]
    for name, comment, example in _SETTINGS:
        # A string of JSON is one of TOML, but for the character DEL.
        value = json.dumps(given.get(name, example), ensure_ascii=False).replace("\x7f", "\\u007f")
        parts.append(f"# {comment}\n{'' if name in given else '# '}{name} = {value}\n")
    return "\n".join(parts)
