"""The command `jobrota completion`: prints a script with which a shell completes commands and options."""

from __future__ import annotations

import argparse
from typing import Any

from jobrota.errors import MissingPackageError

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "print the script with which a shell completes commands, options and files"

_FILES = ("FILE", "JOURNAL", "PATH", "RESULT")
_FOLDERS = ("DIR", "FOLDER", "ROOT")


def add_arguments(parser: argparse.ArgumentParser, whole: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command.

    Args:
        parser: The parser of this command.
        whole: The parser of all commands, which the script completes.
    """
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that reads the script")
    parser.set_defaults(whole=whole)


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError(
            "completion needs shtab: install the package of the extra 'completion': pip install 'shtab>=1.13'"
        ) from error
    kinds: dict[Any, Any] = dict.fromkeys(_FILES, shtab.FILE) | dict.fromkeys(_FOLDERS, shtab.DIRECTORY)
    _complete_paths(arguments.whole, kinds)
    script = shtab.complete(arguments.whole, shell=arguments.shell)
    # `source <(jobrota completion zsh)` registers the function, too: shtab's script does it for eval alone.
    print(script.replace("$zsh_eval_context[-1] == eval ", "$zsh_eval_context[-1] == (eval|file) "))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, kinds: dict[Any, Any]) -> None:
    """Completes the values of arguments whose name in the help is one of `kinds`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_paths(below, kinds)
        elif kind := kinds.get(action.metavar):
            action.complete = kind  # type: ignore[attr-defined] # shtab reads this attribute
