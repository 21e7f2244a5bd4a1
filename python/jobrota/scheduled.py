"""The entry point `jobrota-scheduled`: runs a command of `jobrota` as a scheduled task, such as a wheel task.

A task has no shell. This entry point does what a shell script would do around the command: it sets environment
variables from a secret scope, and decides which exit codes are failures. It needs a name of its own: Databricks looks
an entry point up by its name alone, and the plugin for pytest is called `jobrota` as well.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jobrota import cli
from jobrota.commands.deliver import EXIT_LEASE_HELD
from jobrota.errors import AuthenticationError, InvalidInputError, MissingPackageError

__all__ = ["main"]

# A scope cannot set PATH, LD_PRELOAD or the like: who may write secrets must not decide what runs.
_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "JOBROTA_", "SAS_")
_NAME = re.compile(rf"({'|'.join(_PREFIXES)})[A-Z0-9_]+")
# For the same reason, not the settings that name programs, machines, or the event that a status becomes.
_PARAMETERS = frozenset({"JOBROTA_CONFIG", "JOBROTA_INVENTORY", "JOBROTA_MAPPING", "JOBROTA_TRANSPORT"})


def main() -> None:
    """Runs the command that `sys.argv` names, and returns when it succeeded.

    A delivery that finds the lease held by another process succeeded as well: that process delivers.

    Raises:
        SystemExit: With the exit code of the command. Never with 0, which Databricks counts as a failure.
        JobrotaError: The secret scope cannot be read.
    """
    try:
        arguments = _parser().parse_args(sys.argv[1:])
    except SystemExit as stop:  # argparse ends --help this way too
        if stop.code:
            raise
        return
    with _secrets(arguments.secret_scope):
        _run(arguments.command)


def _run(command: Sequence[str]) -> None:
    try:
        cli.main(command)
    except SystemExit as stop:
        # Of an operator's action such as redrive, 3 means that it was not done.
        if stop.code != EXIT_LEASE_HELD or list(command[:2]) != ["autosys", "deliver"]:
            raise


def _parser() -> argparse.ArgumentParser:
    text = "Run a command of jobrota as a scheduled task: a delivery whose lease another process holds is no failure."
    parser = argparse.ArgumentParser(prog="jobrota-scheduled", description=text, allow_abbrev=False)
    parser.add_argument(
        "--secret-scope",
        metavar="NAME",
        help="scope of Databricks whose secrets become environment variables: azure-client-secret becomes "
        f"AZURE_CLIENT_SECRET. Used are those that begin with {', '.join(_PREFIXES)}, but "
        f"{', '.join(sorted(_PARAMETERS))} are not. Empty: none",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND …", help="the command of jobrota")
    return parser


@contextmanager
def _secrets(scope: str | None) -> Iterator[None]:
    """Sets the variables of the scope while the command runs. The interpreter of a task can outlive the task."""
    if not scope:
        yield
        return
    variables = _variables(scope)
    before = {name: os.environ.get(name) for name in variables}
    print(f"environment variables from the secret scope {scope}: {', '.join(sorted(variables))}", file=sys.stderr)
    try:
        os.environ.update(variables)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _variables(scope: str) -> dict[str, str]:
    """Returns the variables that the secrets of the scope are."""
    secrets = _store()
    try:
        keys = {str(entry.key).upper().replace("-", "_"): str(entry.key) for entry in secrets.list(scope)}
        used = {name: key for name, key in keys.items() if _NAME.fullmatch(name) and name not in _PARAMETERS}
        variables = {name: str(secrets.get(scope, key)) for name, key in used.items()}
    except Exception as error:  # Databricks documents no class
        raise AuthenticationError(
            f"the secrets of the scope {scope} cannot be read ({type(error).__name__}): check the name of the scope, "
            "and grant READ on it to the identity that runs the job"
        ) from error
    if settings := keys.keys() & _PARAMETERS:
        print(
            f"not used from the secret scope {scope}: {', '.join(sorted(settings))}; give them as parameters, such as "
            "--transport",
            file=sys.stderr,
        )
    if broken := [name for name, value in variables.items() if "\0" in value]:
        raise InvalidInputError(
            f"the secret {used[broken[0]]} of the scope {scope} has a NUL character, which no environment variable "
            "can hold: store it again as text"
        )
    if not variables:
        raise InvalidInputError(
            f"no secret of the scope {scope} begins with {', '.join(_PREFIXES)}: name a secret as its environment "
            "variable, such as azure-client-secret, or leave --secret-scope out"
        )
    return variables


def _store() -> Any:
    """Returns `dbutils.secrets` of the runtime."""
    try:
        from databricks.sdk.runtime import dbutils
    except ImportError as error:
        raise MissingPackageError(
            "--secret-scope needs databricks-sdk, which each runtime of Databricks has: elsewhere, leave "
            "--secret-scope out, and set the environment variables"
        ) from error
    return dbutils.secrets
