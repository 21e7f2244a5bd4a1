"""A program in a pseudo-terminal of a given size, and the screen that it draws."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

# The new session takes the terminal as its own, so that Ctrl-C in it is a signal.
_START = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
HOME = "\x1b[H"


class Terminal:
    """The user's side of the terminal."""

    def __init__(self, columns: int, lines: int, *command: str, env: dict[str, str] | None = None) -> None:
        """Starts `command`."""
        self._ours, self._theirs = pty.openpty()
        self._resize(columns, lines)
        self.attributes = termios.tcgetattr(self._theirs)
        environment = os.environ | {"TERM": "xterm-256color"} | (env or {})
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *command],
            stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        self.output = ""

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Changes the size, and tells the program."""
        self._resize(columns, lines)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._ours, keys.encode())

    def screen(self) -> list[str]:
        """The lines of the last complete frame, without colours."""
        frames = self.output.split(HOME)
        # The last one can still be coming.
        return [_ESCAPE.sub("", line) for line in frames[-2].split("\r\n")] if len(frames) > 2 else []

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """The first screen of which `holds` is true."""
        end = time.monotonic() + 60
        while not holds(self.screen()):
            assert time.monotonic() < end, self.output[-4_000:]
            if not self._read():
                raise AssertionError(f"the program ended: {self.output[-4_000:]}")
        return self.screen()

    def _read(self) -> bool:
        """Reads what the program has written; False once it has ended."""
        if select.select([self._ours], [], [], 0.1)[0]:
            self.output += os.read(self._ours, 65_536).decode(errors="replace")
            return True
        return self.process.poll() is None

    def end(self) -> int:
        """The exit code, after everything that was written is read."""
        end = time.monotonic() + 60
        while self._read():
            assert time.monotonic() < end, self.output[-4_000:]
        return self.process.wait(60)

    def close(self) -> None:
        """Ends the program and the terminal."""
        self.process.kill()
        self.process.wait()
        for side in (self._ours, self._theirs):
            os.close(side)

    def attributes_now(self) -> list[object]:
        """How the terminal is set."""
        return termios.tcgetattr(self._theirs)


@contextlib.contextmanager
def terminal(columns: int, lines: int, *command: str, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    """Runs `command` in a terminal of this size."""
    opened = Terminal(columns, lines, *command, env=env)
    try:
        yield opened
    finally:
        opened.close()
