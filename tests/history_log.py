"""Reads the commits of a Delta table from its log: which rows each version adds and removes.

The log is read as JSON and the data files by pyarrow, so that no engine comes between the history and its check.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from history import Commit, Row, Rows

NAMES = ("file_name", "job_id", "status", "autosys_update_flag")
TIMES = ("notification_timestamp", "execution_timestamp")


def local(table: Path) -> Any:
    """The files of a table on the local disk."""
    return pyarrow.fs.SubTreeFileSystem(str(table), pyarrow.fs.LocalFileSystem())


def remote(uri: str, options: dict[str, str]) -> Any:
    """The files of a table in an object store, through PyPI's deltalake."""
    import deltalake.fs

    return pyarrow.fs.PyFileSystem(deltalake.fs.DeltaStorageHandler(uri, options))


def keep(table: Path, kept: Path) -> None:
    """Links the data files that are there now into a directory from which no vacuum deletes them."""
    for path in table.rglob("*.parquet"):
        if "_delta_log" not in path.parts and not path.name.startswith("."):
            try:
                os.link(path, kept / path.name)
            except (FileExistsError, FileNotFoundError):
                # It is kept already, or it was deleted at this moment.
                continue


def commits(files: Any, kept: Path | None = None) -> list[Commit]:
    """All commits, from version 0 on."""
    log = files.get_file_info(pyarrow.fs.FileSelector("_delta_log"))
    entries = sorted(info.path for info in log if len(info.base_name) == 25 and info.base_name.endswith(".json"))
    active: dict[str, Rows] = {}
    found = []
    for path in entries:
        with files.open_input_stream(path) as stream:
            text = stream.read().decode()
        version = int(path.rpartition("/")[2][:20])
        actions = [json.loads(line) for line in text.splitlines() if line]
        found.append(_commit(version, actions, active, lambda add: _rows(files, kept, add)))
    return found


def _commit(version: int, actions: list[dict[str, Any]], active: dict[str, Rows], read: Any) -> Commit:
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    engine = str(info.get("engineInfo", "an unnamed client")).partition("/")[0].partition(":")[0]
    commit = Commit(version, str(info.get("operation")), engine)
    commit.id = (info.get("operationParameters") or {}).get("commitId")
    for remove in (action["remove"] for action in actions if "remove" in action):
        rows = active.pop(remove["path"], None)
        if rows is None:
            commit.problems.append(f"removes a file that is not there: {remove['path']}")
        else:
            commit.removed.update(rows)
    for add in (action["add"] for action in actions if "add" in action):
        if add["path"] in active:
            commit.problems.append(f"adds a file that is there: {add['path']}")
        rows = active[add["path"]] = read(add)
        commit.added.update(rows)
        counted = json.loads(add.get("stats") or "{}").get("numRecords", rows.total())
        if counted != rows.total():
            commit.problems.append(f"counts {counted} rows of {rows.total()} in {add['path']}")
    return commit


def _rows(files: Any, kept: Path | None, add: dict[str, Any]) -> Rows:
    """The rows of one data file."""
    assert not add.get("deletionVector"), "deletion vectors are not read here"
    path = unquote(add["path"])
    try:
        with files.open_input_file(path) as source:
            table = pyarrow.parquet.ParquetFile(source).read()
    except FileNotFoundError:
        assert kept is not None, f"{path} was vacuumed"
        table = pyarrow.parquet.ParquetFile(kept / path.rpartition("/")[2]).read()
    partition: dict[str, str | None] = add.get("partitionValues") or {}
    columns: list[list[Any]] = []
    for name in NAMES:
        in_file = name in table.column_names
        columns.append(table[name].to_pylist() if in_file else [partition.get(name)] * table.num_rows)
    time = next(name for name in TIMES if name in table.column_names)
    columns.append(table[time].cast(pa.timestamp("us", table[time].type.tz)).cast(pa.int64()).to_pylist())
    return Counter(map(Row, *columns))
