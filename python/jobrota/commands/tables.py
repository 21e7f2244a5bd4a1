"""Tables as text, as the commands print them.

They need no other package: rich would bring a Pygments that is newer than that of some runtimes.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

from jobrota.text import printable

__all__ = ["counted", "print_table"]

_GAP = "  "


def print_table(
    names: Sequence[str], rows: Sequence[Sequence[Any]], phrases: Collection[str] = ("detail", "error", "reason")
) -> None:
    """Prints rows as a table. A file or another program gets lines of any length.

    Args:
        names: The columns.
        rows: Their values.
        phrases: The columns that a terminal folds between words. The others have names to search for and to copy.
    """
    lines = [list(names), *([printable(value) for value in row] for row in rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(_width, column)) for column in columns]
    if sys.stdout.isatty():
        least = [
            max((_width(word) for text in column for word in text.split()), default=0) if name in phrases else width
            for name, column, width in zip(names, columns, widths, strict=True)
        ]
        widths = _fitted(widths, least, shutil.get_terminal_size().columns - len(_GAP) * (len(names) - 1))
    numbers = [bool(rows) and all(isinstance(row[at], int | None) for row in rows) for at in range(len(names))]
    for line in lines:
        cells = [_folded(text, width) for text, width in zip(line, widths, strict=True)]
        for level in range(max(map(len, cells))):
            texts = [cell[level] if level < len(cell) else "" for cell in cells]
            aligned = [
                f"{_blank(text, width)}{text}" if right else f"{text}{_blank(text, width)}"
                for text, width, right in zip(texts, widths, numbers, strict=True)
            ]
            print(_GAP.join(aligned).rstrip())


def counted(number: int, thing: str) -> str:
    """Returns a number and its noun, such as "1 row" and "2 rows"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _fitted(widths: Sequence[int], least: Sequence[int], available: int) -> list[int]:
    """Returns the widths with the widest of the columns that can be folded narrowed until all of them fit."""
    fitted = list(widths)
    while sum(fitted) > available:
        foldable = [at for at, width in enumerate(fitted) if width > least[at]]
        if not foldable:
            break
        fitted[max(foldable, key=fitted.__getitem__)] -= 1
    return fitted


def _folded(text: str, width: int) -> list[str]:
    """Returns the lines of a cell."""
    if _width(text) <= width:
        return [text]
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _width(text: str) -> int:
    """Returns the number of a terminal's columns that the text takes. East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "FW" else not unicodedata.combining(char) for char in text)


def _blank(text: str, width: int) -> str:
    return " " * (width - _width(text))
