"""Records the calls of a process while it makes them, and reads the recordings of processes that may have been killed.

Each call is a line before and a line after it, written by one `os.write` each, which a SIGKILL cannot take back.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

from arro3.core import DataType, Table

from history import FOREVER, Call, Outcome, Row, as_row

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
NAMES = ("file_name", "job_id", "status", "autosys_update_flag")

T = TypeVar("T")


def micros(moment: datetime | None) -> int | None:
    """A time in microseconds."""
    return None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)


def rows_of(table: Any) -> list[Row]:
    """The rows of an Arrow table of the ledger."""
    time = next(name for name in table.column_names if name.endswith("_timestamp"))
    columns = [table[name].to_pylist() for name in NAMES]
    # As numbers: threads that ask for their first time zone at once do not always find it.
    return list(map(Row, *columns, Table.from_arrow(table)[time].cast(DataType.int64()).to_pylist()))


class Recorder:
    """Writes the recording of one process. Threads may share it."""

    def __init__(self, path: Path | str, who: str) -> None:
        """Appends to the file `path`."""
        self.who = who
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._numbers = itertools.count()

    def _say(self, **line: Any) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def call(
        self,
        kind: str,
        table: str,
        work: Callable[[], T],
        *,
        given: Sequence[Row] = (),
        where: dict[str, str] | None = None,
        limit: int | None = None,
        result: Callable[[T], Any] = lambda value: None,
        wrote_nothing: Callable[[Exception], bool] = lambda error: False,
    ) -> T:
        """Makes a call and records it; `result` is what is recorded of the value that it returned."""
        name = f"{self.who}/{next(self._numbers)}"
        asked = {"kind": kind, "table": table, "given": given, "where": where or {}, "limit": limit}
        self._say(call=name, at=time.monotonic_ns(), **asked)
        try:
            value = work()
        except Exception as error:
            ended = time.monotonic_ns()
            outcome = Outcome.NOTHING if wrote_nothing(error) else Outcome.UNKNOWN
            self._say(end=name, at=ended, outcome=outcome.value, error=f"{type(error).__name__}: {error}")
            raise
        ended = time.monotonic_ns()
        self._say(end=name, at=ended, outcome=Outcome.RETURNED.value, result=result(value))
        return value


def died(path: Path | str) -> None:
    """Records that the process of a recording is certainly gone."""
    with Path(path).open("a") as recording:
        recording.write("\n" + json.dumps({"died": time.monotonic_ns()}) + "\n")


def calls(recordings: Iterable[Path]) -> list[Call]:
    """The recorded calls of all processes."""
    return [call for path in recordings for recorded in _calls(path) for call in _expanded(recorded)]


def _calls(path: Path) -> Iterator[Call]:
    begun: dict[str, Call] = {}
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut short by the kill
        if "call" in line:
            given = tuple(map(as_row, line["given"]))
            where, limit = line["where"], line["limit"]
            begun[line["call"]] = Call(
                line["call"],
                line["kind"],
                line["table"],
                line["at"],
                FOREVER,
                Outcome.UNKNOWN,
                given,
                where,
                limit,
            )
        elif "end" in line:
            call, outcome = begun.pop(line["end"]), Outcome(line["outcome"])
            # What an object store was asked for can still happen after the error.
            ended = FOREVER if outcome is Outcome.UNKNOWN else line["at"]
            yield replace(call, ended=ended, outcome=outcome, result=line.get("result"))
        else:
            begun = {name: replace(call, ended=line["died"]) for name, call in begun.items()}
    yield from begun.values()


def _expanded(call: Call) -> Iterator[Call]:
    """A call that concerns two tables is one call of each."""
    if call.kind == "counts":
        for table, counts in (call.result or {}).items():
            yield replace(call, name=f"{call.name} {table}", table=table, result=counts)
    elif call.kind == "settle by hand":
        yield replace(call, kind="acknowledge")
        # Also if others acknowledged the notifications in the meantime, so that it set none of them.
        settles = replace(call, name=f"{call.name} executions", kind="settle", table="autosys_job_log", result=None)
        yield replace(settles, outcome=Outcome.UNKNOWN)
    else:
        yield call
