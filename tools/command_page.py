"""Prints docs/command.md from the parsers of the command: `python tools/command_page.py > docs/command.md`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from jobrota.cli import build_parser

HEAD = """\
# The command

All commands and their options. `jobrota COMMAND --help` shows the same for one command. A `TIME` is a
[duration](python.md#durations) within [limits](python.md#limits). Options without a default are off or not set.

Tables for a file or another program have lines of any length. In a terminal, text is folded between words in
columns of phrases, such as errors. A name is never folded.

With `--json`, a command prints one JSON value on one line, and what it says to people goes to the standard error. \
With `--quiet`, it prints errors and warnings alone, on the standard error: also why it ends with 1. In text and in \
JSON, times are ISO 8601 in UTC, such as `2026-05-01T06:00:00Z`. A character that the encoding of the output does not \
have is an escape sequence, such as `\\u540d`.

## Exit codes

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | something failed in this run: a VM in `vms check`, a check of `doctor`, a job of `compare`, a file of \
`ledger import`, a table of `ledger maintain`; a row that `migrate` could not copy, or that differs, or a version that \
its source does not have; a row that `autosys deliver` could not deliver, left in doubt or \
parked, or would park (`--dry-run`); nothing to do for `redrive`, `ack` or `skip`. Or a store, a server, a ledger, \
a token file, the result of `report`, \
the program `sendevent` or the `env_file` of a transport in settings is not there. \
Or the standard output cannot be written |
| 2 | usage or settings: an option is unknown or missing, or an option, a setting or a file has a wrong value; a file \
that an option or a setting names is not there; several \
rows match `ack` or `skip`; this version does not support a path or a table; a package of an extra is not installed. \
The same command fails again until you change it |
| 3 | another process holds the lease. Run the command again later |
| 130, 143 | interrupted by Ctrl-C (130) or SIGTERM (143). `sandbox` ends with 0, and so does `top` at \
Ctrl-C. At both, `autosys deliver` ends its cycle in order and prints its report. After SIGTERM, it has the code of \
this cycle |
| 141 | the program that reads the output, such as `head`, ended first. Events of a cycle are sent and recorded all \
the same |

All commands use these codes. A row that an earlier run of `autosys deliver` parked does not count, so that a \
scheduled task fails once for it. With `--fail-on parked`, it fails until an operator redrives or settles the row.

When the standard output is closed, or its disk is full, `autosys deliver` says so once on the standard error and goes \
on. Its exit code is that of the rows, because they are delivered. The other commands end with 1; `--help` ends with 0.
"""

# How each shell reads its script.
COMPLETION = """\
| shell | line for the file that the shell reads at its start |
| --- | --- |
| bash, in `~/.bashrc` | `source <(jobrota completion bash)` |
| zsh, in `~/.zshrc`, below `compinit` | `source <(jobrota completion zsh)` |
| tcsh, in `~/.tcshrc` | `jobrota completion tcsh > ~/.jobrota.csh && source ~/.jobrota.csh` |"""


def main() -> None:
    """Prints the page."""
    found = list(commands(build_parser(), "jobrota"))
    print(HEAD)
    print("| command | what it does |\n| --- | --- |")
    for name, parser in found:
        print(f"| [`{name}`](#{name.replace(' ', '-')}) | {cell(parser.description)} |")
    for name, parser in found:
        rows = [row(action, parser) for action in parser._actions if action.dest != "help"]
        if rows:
            print(f"\n## {name}\n\n| argument | meaning |\n| --- | --- |")
            print("\n".join(rows))
        if name == "jobrota completion":
            print(f"\n{COMPLETION}")


def commands(parser: Any, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yields each command that runs something, with its full name."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for word, below in group.choices.items():
            yield from commands(below, f"{name} {word}")


def row(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Returns the row of an argument."""
    value = action.metavar or f"{{{','.join(map(str, action.choices or ()))}}}"
    many = " …" if action.nargs in ("*", "+") else ""
    shown = f"{', '.join(action.option_strings)}{'' if action.nargs == 0 else f' {value}'}{many}".strip()
    needed = " (required)" if action.required and action.option_strings else ""
    return f"| {code(shown)} | {cell(parser._get_formatter()._expand_help(action))}{needed} |"


def code(text: str) -> str:
    """Returns text as code within a table. A backslash before a bar is needed on some sites, and shown on others."""
    bar = "&#124;"
    return f"<code>{text.replace('|', bar)}</code>" if "|" in text else f"`{text}`"


def cell(text: str | None) -> str:
    """Returns text that is no markup within a table."""
    return (text or "").replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    main()
