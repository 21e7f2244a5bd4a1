"""Files that are replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["replace"]


def replace(target: Path, content: str | bytes, *, make_folders: bool = True) -> None:
    """Writes `content` in place of the file that exists. A reader never sees a part of it.

    Args:
        target: The file. A link is replaced, not the file that it leads to.
        content: Text is written as UTF-8.
        make_folders: Whether missing folders are made.

    Raises:
        OSError: The file cannot be written. The old content stays.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> replace(target, "one")
        >>> replace(target, "two")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('two', 1)
    """
    if make_folders:
        target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
