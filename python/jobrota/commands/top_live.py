"""The live part of `jobrota top`: reads and draws again until the user ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from rich.console import Console
from rich.live import Live

from jobrota._native import JobLedger, RoundRobinSelector
from jobrota.commands.top_view import Snapshot, view
from jobrota.errors import JobrotaError

__all__ = ["Source", "in_flight", "watch"]

_ROW = ("table_name", "file_name", "job_id", "status", "row_timestamp")


def watch(
    ledger: JobLedger, selector: RoundRobinSelector | None, console: Console, *, every: float, recent: float
) -> int:
    """Shows the view until the user ends it.

    Args:
        ledger: What is shown.
        selector: The VMs that are shown, if any.
        console: The terminal.
        every: Seconds between two refreshes.
        recent: Seconds that outcomes are shown.

    Returns:
        The exit code: 143 after SIGTERM.

    Raises:
        JobrotaError: The first read failed. Later, the view shows why, and goes on.
    """
    return asyncio.run(_watch(Source(ledger, selector, recent), console, every))


class Source:
    """Reads what the view shows."""

    def __init__(self, ledger: JobLedger, selector: RoundRobinSelector | None, recent: float) -> None:
        """Reads a ledger, and the VMs of a selector if there is one. `recent` is in seconds."""
        self._ledger = ledger
        self._selector = selector
        self._recent = timedelta(seconds=recent)

    async def read(self) -> Snapshot:
        """Returns what is shown now."""
        since = datetime.now(timezone.utc) - self._recent
        summary, deliveries = await asyncio.gather(
            self._ledger.summary_async(), self._ledger.deliveries_async(since=since)
        )
        states = [] if self._selector is None else (await self._selector.state_async()).to_pylist()
        attempts = sorted(deliveries.to_pylist(), key=lambda row: row["attempted_at"], reverse=True)
        recent = [row for row in attempts if row["outcome"] != "sending"]
        return Snapshot(summary, in_flight(attempts), recent, states)


def in_flight(attempts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the marks without an outcome, the latest first.

    A mark of a process that died stays without one. It is over when a later attempt of its row has an outcome.

    Args:
        attempts: Rows of the attempts table, the latest first.
    """
    over: Counter[tuple[Any, ...]] = Counter()
    ended: dict[tuple[Any, ...], set[int]] = {}
    marks = []
    for attempt in attempts:
        row, number = tuple(attempt[name] for name in _ROW), attempt["attempt"]
        key = (row, number)
        if attempt["outcome"] != "sending":
            over[key] += 1  # identical rows have as many outcomes as marks
            ended.setdefault(row, set()).add(number)
        elif over[key]:
            over[key] -= 1
        elif not ended.get(row, set()) - {number}:
            marks.append(attempt)
    return marks


async def _watch(source: Source, console: Console, every: float) -> int:
    ended, resized = asyncio.Event(), asyncio.Event()
    codes: list[int] = []
    loop = asyncio.get_running_loop()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    def read_key() -> None:
        keys = os.read(sys.stdin.fileno(), 1024)
        if not keys or b"q" in keys.lower():  # without keys, the terminal is gone
            loop.remove_reader(sys.stdin.fileno())
            end(0)

    loop.add_signal_handler(signal.SIGINT, end, 0)
    loop.add_signal_handler(signal.SIGTERM, end, 143)
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    snapshot = await _unless(ended, source.read())  # before the screen changes: an error stays readable
    if snapshot is None:
        return codes[0]
    with _keys_at_once(), _screen_left(), Live(console=console, screen=True, auto_refresh=False) as live:
        loop.add_reader(sys.stdin.fileno(), read_key)
        while True:
            live.update(view(snapshot, console.height), refresh=True)
            resized.clear()
            await _first(every, ended, resized)
            if ended.is_set():
                return codes[0]
            if not resized.is_set():
                try:
                    snapshot = await _unless(ended, source.read()) or snapshot
                except JobrotaError as error:  # such as a store that is away: the view goes on when it is back
                    snapshot = replace(snapshot, problem=str(error))


async def _unless(ended: asyncio.Event, reading: Any) -> Any:
    """Returns what `reading` returns, or None if the view ends first."""
    task, end = asyncio.ensure_future(reading), asyncio.ensure_future(ended.wait())
    await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None


async def _first(seconds: float, *events: asyncio.Event) -> None:
    """Waits until one of the events is set, and at most this long."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


@contextmanager
def _screen_left() -> Iterator[None]:
    """Leaves the screen of the view also after an error. rich does not if it has text that cannot be written."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.write(sys.stdout.fileno(), b"\x1b[?1049l\x1b[?25h")
        raise


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Gives keys to the program as they are pressed, and does not show them. Afterwards, the terminal is as before."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    # A stopped view would leave the shell on its screen.
    stop = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTSTP, stop)
