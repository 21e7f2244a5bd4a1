"""Progress of a comparison: bars in a terminal or notebook that has rich, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from types import TracebackType
from typing import Any, TextIO

__all__ = ["PlainProgress", "RichProgress", "make_progress"]


def make_progress() -> PlainProgress | RichProgress:
    """Returns bars where they can be drawn (a terminal, a notebook with ipywidgets), else plain lines for a log file.

    Bars need the package rich, which a runtime can have and the extra `progress` installs. Without it, lines are plain.
    Both are context managers, and are called with one dict per event: arm, round, rounds, done, failed (the part of
    `done` that did not succeed), in_flight, total, job, state.
    """
    try:
        from rich.console import Console

        console = Console()
        # Without ipywidgets, rich warns and draws nothing that moves.
        drawn = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
        return RichProgress(console) if drawn else PlainProgress(sys.stdout)
    except ImportError:  # rich is not installed, or is too old to have all names
        return PlainProgress(sys.stdout)


class RichProgress:
    """One bar per arm and round."""

    def __init__(self, console: Any) -> None:
        """Draws on `console`."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> RichProgress:
        self._progress.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Moves the bar of the event's arm, and starts it at the arm's first event."""
        arm = _title(event)
        if arm not in self._bars:
            self._bars[arm] = self._progress.add_task(arm, total=event["total"], note="")
        self._progress.update(self._bars[arm], completed=event["done"], total=event["total"], note=_note(event))


class PlainProgress:
    """One line per tenth of an arm's round, so that a log stays readable."""

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream`."""
        self._stream = stream
        self._printed: dict[str, int] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.flush()

    def __call__(self, event: dict[str, Any]) -> None:
        """Prints a line when the event's arm has reached its next tenth."""
        arm, total = _title(event), int(event["total"])
        finished = int(event["done"])
        started = self._started.setdefault(arm, time.monotonic())
        tenth = 10 * finished // total if total else 10
        if tenth <= self._printed.get(arm, 0):
            return
        self._printed[arm] = tenth
        elapsed = time.monotonic() - started
        note = _note(event)
        line = f"{arm}: {finished}/{total} jobs after {elapsed:.1f} real s" + (f", {note}" if note else "")
        print(line, file=self._stream, flush=True)


def _title(event: dict[str, Any]) -> str:
    arm = str(event["arm"]).replace("_", " ")
    rounds = event.get("rounds", 1)
    return arm if rounds == 1 else f"{arm}, round {event['round']} of {rounds}"


def _note(event: dict[str, Any]) -> str:
    parts = []
    if event["in_flight"]:
        parts.append(f"{event['in_flight']} running")
    if event["failed"]:
        parts.append(f"{event['failed']} failed")
    return ", ".join(parts)
