"""Helpers of several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def column(table: Any, name: str) -> list[Any]:
    """The values of one column of an Arrow table."""
    values: list[Any] = table[name].to_pylist()
    return values


def rows(table: Any) -> list[tuple[Any, ...]]:
    """The rows of an Arrow table."""
    return list(zip(*(column(table, name) for name in table.column_names), strict=True))
