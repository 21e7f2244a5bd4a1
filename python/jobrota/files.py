"""Files that are whole, or as they were."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["replace"]


def replace(target: Path, text: str) -> None:
    """Writes `text` in place of what is there, and makes folders if needed: nobody ever finds half of a file.

    Args:
        target: The file; a link is replaced, and not what it leads to.
        text: What is in it, written as UTF-8.

    Raises:
        OSError: It cannot be written; what was there is there still.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> replace(target, "one")
        >>> replace(target, "two")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('two', 1)
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
