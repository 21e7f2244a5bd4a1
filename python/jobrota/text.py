"""Values as text that is shown in a terminal or a message."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

__all__ = ["printable", "timestamp"]


def printable(value: Any) -> str:
    """Returns the text of a value in a table or line. Characters that could change a terminal are replaced."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return timestamp(value)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def timestamp(value: datetime, timespec: str = "auto") -> str:
    """Returns a time in the format of all commands: ISO 8601 in UTC.

    Args:
        value: A time with a timezone.
        timespec: The smallest unit, as `datetime.isoformat` takes it.

    >>> timestamp(datetime.fromisoformat("2026-05-01T08:00:00+02:00"))
    '2026-05-01T06:00:00Z'
    """
    return value.astimezone(timezone.utc).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"
