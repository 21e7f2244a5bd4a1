"""The screen of `jobrota top`: what a ledger and its VMs are doing, cut to the size of the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobrota.commands.tables import counted
from jobrota.text import printable, timestamp

if TYPE_CHECKING:
    from jobrota._native import LedgerSummary

__all__ = ["Snapshot", "view"]

_GOOD = {"delivered", "superseded", "redriven", "by_hand", "up"}
_BAD = {"failed", "parked", "unknown", "expired", "down"}


@dataclass(frozen=True)
class Snapshot:
    """What was read at one time.

    Attributes:
        summary: The counts of the ledger.
        in_flight: The attempts that have no outcome yet, the latest first.
        recent: The attempts that have an outcome, the latest first.
        vms: The state of each VM.
        problem: Why this is not up to date, if the last read failed.
    """

    summary: LedgerSummary
    in_flight: Sequence[dict[str, Any]]
    recent: Sequence[dict[str, Any]]
    vms: Sequence[dict[str, Any]]
    problem: str | None = None


def view(snapshot: Snapshot, height: int) -> Group:
    """Returns the screen.

    Args:
        snapshot: What to show.
        height: The lines of the terminal.
    """
    head = _head(snapshot)
    sections = [(_in_flight(snapshot), 0.25), (_recent(snapshot), 1.0)]
    if snapshot.vms:
        sections.insert(1, (_vms(snapshot), 0.35))
    left = height - len(head)
    parts: list[Any] = [*head]
    for number, ((title, columns, rows), share) in enumerate(sections):
        below = 3 * (len(sections) - number - 1)  # each section has a title, names of columns and a row at least
        room = max(1, min(math.ceil(left * share), left - below) - 2)
        parts += [_line(title, "bold"), _table(columns, rows[:room])]
        left -= 2 + min(len(rows), room)
    return Group(*parts)


def _head(snapshot: Snapshot) -> list[Text]:
    summary = snapshot.summary
    counts = {name: getattr(summary, name) for name in ("pending", "parked", "retrying", "unnotified")}
    numbers = Text(no_wrap=True, overflow="ellipsis")
    for name, count in counts.items():
        alarm = "bold red" if count and name in ("parked", "unnotified") else "bold"
        numbers.append(f"{count:,}", style=alarm).append(f" {name}   ")
    if summary.oldest_pending:
        numbers.append(f"oldest {timestamp(summary.oldest_pending, 'seconds')}   ")
    if summary.success_rate is not None:
        # Rounded down: only if all succeeded is it 100 %.
        numbers.append(f"{math.floor(1000 * summary.success_rate) / 10} % of attempts delivered")
    head = [_line(f"{timestamp(summary.made_at, 'seconds')}  q ends  {printable(summary.root)}", "dim"), numbers]
    if snapshot.problem:
        head.append(_line(f"not up to date: {printable(snapshot.problem)}", "bold red"))
    return head


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


_Section = tuple[str, tuple[str, ...], list[list[Any]]]


def _in_flight(snapshot: Snapshot) -> _Section:
    columns = _ATTEMPT[:-2]  # there is no outcome yet, and so no reason
    rows = [_attempt(row)[: len(columns)] for row in snapshot.in_flight]
    return f"In flight: {counted(len(rows), 'row')} sent, without an outcome yet", columns, rows


def _recent(snapshot: Snapshot) -> _Section:
    return "Recent outcomes", _ATTEMPT, [_attempt(row) for row in snapshot.recent]


def _vms(snapshot: Snapshot) -> _Section:
    rows = []
    for vm in snapshot.vms:
        health = {True: "up", False: "down", None: "not known"}[vm["healthy"]]
        rows.append([vm["vm"], "drained" if vm["drained"] else health, vm["in_flight"]])
    return f"VMs: {len(rows):,}", ("vm", "state", "in use"), rows


_ATTEMPT = ("at", "job", "status", "attempt", "vm", "outcome", "detail")


def _attempt(row: dict[str, Any]) -> list[Any]:
    at = timestamp(row["attempted_at"], "seconds")
    return [at, *(row[name] for name in ("job_id", "status", "attempt", "vm", "outcome", "detail"))]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        # The last column has what is left.
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if name == columns[-1] else None)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> Text:
    # Text and no str: rich reads markup in a str, and the values come from outside.
    text = printable(value)
    return Text(text, style="green" if text in _GOOD else "red" if text in _BAD else "")
