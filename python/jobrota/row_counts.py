"""How often a table has each row, by flag, and what two tables lack of each other.

Rows have no key: rows with the same values are separate events. So tables are compared by counts. Rows come in the
order of their times, and only the rows of one time are in memory.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, repeat
from typing import TypeAlias

__all__ = ["Counted", "Difference", "Row", "differences", "merged"]

Row: TypeAlias = tuple[int | None, str | None, str | None, str | None]
"""Time in microseconds since 1970 UTC, file, job and status."""

Counted: TypeAlias = tuple[int | None, str | None, str | None, str | None, str | None, int]
"""A row, its flag, and how often the table has it. A table can return the same row several times."""

NO, YES = "NO", "YES"


@dataclass
class Difference:
    """One row that two tables do not have equally often, or not with the same flags.

    Attributes:
        row: The row.
        source: How often the source has it, by flag.
        target: How often the target has it, by flag.
        acknowledge: How often its flag has to change from `NO` to `YES` in the target.
        append: How often it is missing in the target, by the flag of the source.
        ahead: How often it is acknowledged in the target only.
        stuck: How often it has another flag in the source, which acknowledging does not set.
        spare: How often the target has it more than the source, by flag.
    """

    row: Row
    source: Counter[str | None]
    target: Counter[str | None]
    acknowledge: int = field(init=False)
    append: Counter[str | None] = field(init=False)
    ahead: int = field(init=False)
    stuck: int = field(init=False)
    spare: Counter[str | None] = field(init=False)

    def __post_init__(self) -> None:
        """Explains as many rows as possible by a changed flag. Only what is left is missing or extra.

        >>> one = Difference((0, "a.sas", "A", "SUCCESS"), Counter(YES=2, NO=1), Counter(NO=2))
        >>> one.acknowledge, dict(one.append), dict(one.spare)
        (1, {'YES': 1}, {})
        """
        self.acknowledge = self.ahead = self.stuck = 0
        self.append, self.spare = self.source, self.target
        if not (self.source and self.target):
            return
        missing, spare = self.source - self.target, self.target - self.source

        def pair(wanted: str | None, found: str | None) -> int:
            count = min(missing[wanted], spare[found])
            missing[wanted] -= count
            spare[found] -= count
            return count

        self.acknowledge = pair(YES, NO)
        self.ahead = pair(NO, YES)
        self.stuck = sum(pair(wanted, found) for wanted in list(missing) for found in list(spare))
        self.append, self.spare = +missing, +spare


def differences(
    source: Iterable[Counted], target: Iterable[Counted], others: Iterable[Counted] = ()
) -> Iterator[Difference]:
    """Yields the rows whose counts differ.

    The rows of all tables are in the order of their times. Those without a time come first.

    Args:
        source: The rows of one table.
        target: The rows of the other table.
        others: Rows that the target has from elsewhere. They do not count as rows of the source.

    Yields:
        Each row that differs, in the same order.

    >>> row = (0, "a.sas", "A", "SUCCESS", "NO", 1)
    >>> [dict(found.append) for found in differences([row, row], [row])]
    [{'NO': 1}]
    >>> [dict(found.append) for found in differences([row], [row], others=[row])]
    [{'NO': 1}]
    """
    marked = (zip(table, repeat(mark)) for mark, table in enumerate((source, target, others)))
    for at, rows in groupby(heapq.merge(*marked, key=_order_of_marked), key=lambda marked: marked[0][0]):
        counts: dict[tuple[str | None, ...], tuple[dict[str | None, int], ...]] = {}
        for (_, file_name, job_id, status, flag, count), mark in rows:
            flags = counts.setdefault((file_name, job_id, status), ({}, {}, {}))[mark]
            flags[flag] = flags.get(flag, 0) + count
        for (file_name, job_id, status), (wanted, found, elsewhere) in counts.items():
            row = (at, file_name, job_id, status)
            left = Difference(row, Counter(elsewhere), Counter(found)).spare if elsewhere else found
            if wanted != left:
                yield Difference(row, Counter(wanted), Counter(left))


def merged(*tables: Iterable[Counted]) -> Iterator[Counted]:
    """Yields the rows of several tables in the order of their times."""
    return heapq.merge(*tables, key=_order)


def _order(row: Counted) -> float:
    return -math.inf if row[0] is None else row[0]


def _order_of_marked(marked: tuple[Counted, int]) -> float:
    return _order(marked[0])
