"""Turns SIGTERM, which ends a scheduled process, into an exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "terminable"]


class Terminated(BaseException):
    """The process received SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` at SIGTERM inside the block, unless the program handles SIGTERM itself.

    >>> with terminable():
    ...     pass
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
