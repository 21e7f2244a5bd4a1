"""Where `migrate` reads rows: a ledger's root, tables that Spark knows, and a folder of legacy JSON files.

Spark groups and sorts by itself and hands over counted rows, so that it reads each table that it can read, whatever its
layout, features and name. Without Spark, the native module reads what a ledger can open.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobrota._native import JobLedger
from jobrota.errors import (
    InvalidInputError,
    JobrotaError,
    MaintenanceWarning,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from jobrota.row_counts import Counted
from jobrota.storage_options import StorageOptions

__all__ = ["TABLES", "LedgerSource", "Reading", "SparkSource", "counted_rows", "rows_of", "same_place"]

TABLES = {"autosys_job_log": "execution_timestamp", "job_notifications": "notification_timestamp"}
"""The tables with rows, and the column of each that has the time."""

_TEXTS = ("file_name", "job_id", "status", "autosys_update_flag")
_SLICE = 50_000
_LOG_FILE = re.compile(r"(\d{20})\.(json|checkpoint\.)")
_NOT_THERE = (
    "TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND", "DELTA_MISSING_DELTA_TABLE",
    "DELTA_PATH_DOES_NOT_EXIST", "is not a Delta table",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One table of a source, at one version.

    Attributes:
        name: How the source calls the table.
        version: The version of the Delta table; None if it has none, or it is not known.
        rows: Returns the rows in the order of their times. It can be called again.
        left_out: Columns that a ledger does not have.
    """

    name: str
    version: int | None
    rows: Callable[[], Iterator[Counted]]
    left_out: tuple[str, ...] = ()


class LedgerSource:
    """The tables below a root that a ledger can open."""

    def __init__(self, root: str, options: StorageOptions | None) -> None:
        """Opens the root and writes nothing.

        Raises:
            UnsupportedError: A table has a feature that a ledger cannot open.
        """
        self.name = root
        try:
            self._ledger = JobLedger(root, storage_options=options)
        except UnsupportedError as error:
            raise UnsupportedError(f"{error}; to migrate it as it is, read it with spark= (--spark)") from error

    def read(self, table: str, version: int | None = None) -> Reading | None:
        """Reads a table completely; returns None if there is none.

        Args:
            table: A name of `TABLES`.
            version: The version that is expected.

        Raises:
            NotFoundError: The table has another version.
        """
        while True:
            before = self.version(table)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MaintenanceWarning)  # the old tables are not maintained any more
                data = rows_of(self._ledger, table)
            if data is None:
                return None
            if before == self.version(table):
                break
        if before is None and _local(self.name) is not None:
            return None
        if version not in (None, before):
            at = "a version that is not known" if before is None else f"version {before}"
            text = f"{self.name}/{table} is at {at}, not at {version}: name the version that is there, or give spark="
            raise NotFoundError(f"{text} (--spark), which reads earlier versions; nothing was written")
        left_out = tuple(name for name in data.column_names if name not in (*_TEXTS, TABLES[table]))
        return Reading(f"{self.name}/{table}", before, lambda: counted_rows(data, table), left_out)

    def version(self, table: str) -> int | None:
        """The newest version of a table on a local disk."""
        folder = _local(self.name)
        if folder is None or not (log := folder / table / "_delta_log").is_dir():
            return None
        return max((int(name[1]) for entry in log.iterdir() if (name := _LOG_FILE.match(entry.name))), default=None)

    def location(self, table: str) -> str:
        """Where a table is."""
        return f"{self.name}/{table}"


class SparkSource:
    """Tables that a Spark session reads, by name or path, at any of their versions."""

    def __init__(self, spark: Any, source: str | None, tables: Mapping[str, str]) -> None:
        """Takes the session, the schema or the root of the tables, and the tables that have other names."""
        self.name = source or ", ".join(tables.values())
        self._spark, self._names = spark, {}
        for table in TABLES:
            if table in tables:
                self._names[table] = _quoted(tables[table])
            elif source is not None:
                self._names[table] = _quoted(
                    f"{source.rstrip('/')}/{table}" if is_path(source) else f"{source}.{table}"
                )

    def read(self, table: str, version: int | None = None) -> Reading | None:
        """Reads a table; returns None if there is none.

        Args:
            table: A name of `TABLES`.
            version: The version to read; the newest one if it is not given.

        Raises:
            InvalidInputError: A column is missing, or has another type.
            StorageError: Spark cannot read the table.
        """
        name = self._names.get(table)
        if name is None or (columns := self._columns(name)) is None:
            return None
        at = self.version(table) if version is None else version
        chosen = self._selected(name, table, columns)
        past = "" if at is None else f" VERSION AS OF {at}"
        query = (
            f"SELECT at, file_name, job_id, status, flag, count(*) AS rows FROM (SELECT {chosen} FROM {name}{past}) "
            "GROUP BY at, file_name, job_id, status, flag ORDER BY at NULLS FIRST"
        )
        left_out = tuple(found for found in columns if found.lower() not in (*_TEXTS, TABLES[table]))
        return Reading(name, at, lambda: self._rows(query, name), left_out)

    def version(self, table: str) -> int | None:
        """The newest version of a table; None for a view, and for a table of another format than Delta."""
        try:
            return int(self._spark.sql(f"DESCRIBE HISTORY {self._names[table]} LIMIT 1").collect()[0]["version"])
        except Exception:  # the classes differ between classic Spark, Spark Connect and Databricks
            return None

    def location(self, table: str) -> str | None:
        """Where a table is; None for a view."""
        try:
            return str(self._spark.sql(f"DESCRIBE DETAIL {self._names[table]}").collect()[0]["location"])
        except Exception:  # as above
            return None

    def _columns(self, name: str) -> dict[str, str] | None:
        try:
            schema = self._spark.sql(f"SELECT * FROM {name} LIMIT 0").schema
        except Exception as error:
            if any(sign in str(error) for sign in _NOT_THERE):
                return None
            raise _failed(name, error) from error
        return {column.name: column.dataType.simpleString() for column in schema.fields}

    def _selected(self, name: str, table: str, columns: Mapping[str, str]) -> str:
        time, types = TABLES[table], {column.lower(): kind for column, kind in columns.items()}
        times = {
            "timestamp": f"unix_micros({time})",
            # Text and numbers would be read in the time zone of the session. These have none, and mean UTC.
            "timestamp_ntz": f"timestampdiff(MICROSECOND, TIMESTAMP_NTZ'1970-01-01 00:00:00', {time})",
        }
        for column in (*_TEXTS, time):
            kind = types.get(column)
            fits = kind in times if column == time else re.match("(string|varchar|char)\\b", kind or "")
            if not fits:
                found = (
                    "is missing" if kind is None else f"is {kind}, not {'timestamp' if column == time else 'string'}"
                )
                text = f"the column {column} of {name} {found}: migrate a view that has it, as docs/migration.md shows"
                raise InvalidInputError(f"{text}; nothing was written")
        # As plain text, because columns can have a collation in which different words are equal.
        texts = (f"CAST({column} AS STRING) AS {column.removeprefix('autosys_update_')}" for column in _TEXTS)
        return ", ".join([f"{times[types[time]]} AS at", *texts])

    def _rows(self, query: str, name: str) -> Iterator[Counted]:
        try:
            for row in self._spark.sql(query).toLocalIterator():
                yield tuple(row)
        except Exception as error:
            raise _failed(name, error) from error


def rows_of(ledger: JobLedger, table: str) -> Any:
    """Returns the rows of a table of a ledger as an Arrow table, oldest first; None if there is no ledger yet."""
    try:
        return ledger.executions() if table == "autosys_job_log" else ledger.notifications()
    except NotFoundError:  # the first row creates the ledger
        return None


def counted_rows(data: Any, table: str) -> Iterator[Counted]:
    """Yields the rows of an Arrow table of a ledger, each with the count 1.

    >>> import tempfile
    >>> ledger = JobLedger(tempfile.mkdtemp())
    >>> ledger.log_job_execution("ae.sas", "PROD.AE", "SUCCESS")
    >>> next(counted_rows(ledger.executions(), "autosys_job_log"))[1:]
    ('ae.sas', 'PROD.AE', 'SUCCESS', 'NO', 1)
    """
    from arro3.core import DataType

    for start in range(0, data.num_rows, _SLICE):
        part = data.slice(start, min(_SLICE, data.num_rows - start))
        columns = [part[name].to_pylist() for name in _TEXTS]
        times = part[TABLES[table]].cast(DataType.int64()).to_pylist()
        for at, *texts in zip(times, *columns, strict=True):
            yield (at, *texts, 1)


def is_path(source: str) -> bool:
    """Whether a source is a path or a URI, and not the name of a schema.

    >>> is_path("abfss://c@a.dfs.core.windows.net/jobs"), is_path("main.jobs")
    (True, False)
    """
    return re.search(r"[/\\:~]", source) is not None or source in (".", "..")


def same_place(one: str, other: str) -> bool:
    """Whether two paths or URIs name the same directory.

    >>> same_place("file:/tmp/a/", "/tmp/a"), same_place("s3://b/a", "s3://b/c")
    (True, False)
    """
    first, second = _local(one), _local(other)
    if first is not None and second is not None:
        return os.path.realpath(first) == os.path.realpath(second)
    return one.rstrip("/") == other.rstrip("/")


def _local(location: str) -> Path | None:
    """The directory on a local disk; None for a URI of a remote store."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        # It loads the HTTP client of the standard library, which `import jobrota` does not need.
        from urllib.request import url2pathname

        return Path(url2pathname(parts.path))
    return None if "://" in location else Path(location).expanduser()


def _quoted(name: str) -> str:
    if is_path(name):
        return f"delta.`{name.replace('`', '``')}`"
    if "`" in name:
        return name
    return ".".join(f"`{part}`" for part in name.split("."))


def _failed(name: str, error: Exception) -> JobrotaError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return StorageError(f"Spark cannot read {name}: {first}")
