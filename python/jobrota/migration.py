"""`jobrota.migrate()`: brings existing tables and legacy JSON files into a new ledger, without a write to the old ones.

The record of progress is the new ledger itself. Each run counts the rows of both sides, and writes what is missing. So
a run that was killed is continued by the next one, and no row is copied twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta, timezone
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from jobrota._native import ImportReport, JobLedger
from jobrota.display import repr_html
from jobrota.errors import InvalidInputError, NotFoundError
from jobrota.migration_sources import TABLES, LedgerSource, Reading, SparkSource, counted_rows, rows_of, same_place
from jobrota.row_counts import Counted, Difference, Row, differences, merged
from jobrota.storage_options import StorageOptions
from jobrota.twins import twin

__all__ = ["MigrationReport", "TableMigration", "migrate", "migrate_async"]

_BATCH = 50_000
"""Rows of one commit."""
_SHOWN = 20
"""Rows of each table that a report lists."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass
class TableMigration:
    """One table of a migration. Each count is a number of rows.

    Attributes:
        table: `autosys_job_log` or `job_notifications`.
        source: The table that was read, and the folder of legacy files.
        version: The version of the source that was read; None if it has none, or it is not known.
        rows: Rows of the source.
        appended: Rows that were missing in the new ledger, and are written there; with `step="plan"`, to be written.
        acknowledged: Rows whose flag is `YES` in the source and was `NO` in the new ledger.
        ahead: Rows whose flag is `YES` in the new ledger only. They stay as they are.
        refused: Rows that a ledger does not take, such as those without a job.
        stuck: Rows whose flag in the source is another one, which is neither `NO` nor `YES`.
        missing: With `step="finish"`: rows that the new ledger does not have.
        extra: Rows that only the new ledger has; with `step="copy"`, rows that were written twice.
        left_out: Columns of the source that a ledger does not have.
        problems: What is wrong, in words.
        examples: Some of the rows that are refused or differ, each with its reason.
    """

    table: str
    source: str
    version: int | None
    rows: int = 0
    appended: int = 0
    acknowledged: int = 0
    ahead: int = 0
    refused: int = 0
    stuck: int = 0
    missing: int = 0
    extra: int = 0
    left_out: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class MigrationReport:
    """The result of `migrate()`.

    Attributes:
        step: `plan`, `copy` or `finish`.
        source: The source as it was given.
        target: The root of the new ledger.
        tables: One entry per table that was found.
        imported: The legacy files; None without a folder. With `step="plan"` and `"finish"`, all of their records are
            read, also those that the new ledger has.
    """

    step: str
    source: str
    target: str
    tables: list[TableMigration]
    imported: ImportReport | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: no table has problems, and no file is bad."""
        return not any(table.problems for table in self.tables) and not (self.imported and self.imported.bad)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        tables = [asdict(table) for table in self.tables]
        imported = self.imported and self.imported.to_dict()
        return {"ok": self.ok, **vars(self), "tables": tables, "imported": imported}

    def __repr__(self) -> str:
        """The step and the sums."""
        counts = ("rows", "appended", "acknowledged", "refused", "missing", "extra")
        sums = ", ".join(f"{name}={sum(getattr(table, name) for table in self.tables)}" for name in counts)
        return f"MigrationReport(step={self.step!r}, ok={self.ok}, {sums})"

    def _repr_html_(self) -> str:
        shown = self.to_dict()
        examples = [{"table": table["table"], **row} for table in shown["tables"] for row in table.pop("examples")]
        problems = [problem for table in shown["tables"] for problem in table.pop("problems")]
        return repr_html("migration", {**shown, "problems": problems, "examples": examples})


def migrate(
    source: str | PathLike[str] | None,
    target: JobLedger | str | PathLike[str],
    *,
    step: Literal["plan", "copy", "finish"] = "plan",
    spark: Any = None,
    tables: Mapping[str, str] | None = None,
    json_folder: str | PathLike[str] | None = None,
    fields: Mapping[str, str] | None = None,
    timezone: Any = None,
    versions: Mapping[str, int] | None = None,
    storage_options: StorageOptions | None = None,
    source_options: StorageOptions | None = None,
) -> MigrationReport:
    """Brings the rows of existing tables, and of legacy JSON files, into a new ledger. The old tables are only read.

    A run with `step="copy"` writes what the new ledger lacks: missing rows, with their flags, and acknowledgements. Run
    it as often as you like, and again after it was interrupted. Run one migration into a ledger at a time.

    Args:
        source: The root of the tables `autosys_job_log` and `job_notifications`. With `spark`, also the name of the
            schema that has them, such as `"main.jobs"`. None if `tables` or `json_folder` names all there is.
        target: The new ledger or its root.
        step: `"plan"`: writes nothing, and says what `"copy"` would do. `"copy"`: copies. `"finish"`: writes nothing,
            and checks that both sides have exactly the same rows and flags. Stop all writers before.
        spark: A Spark session that reads the source. Without one, `source` is a root that `JobLedger` can open.
        tables: Tables of other names, for `spark`: `{"autosys_job_log": "main.jobs.my_log"}`; also paths and views.
        json_folder: A folder of legacy JSON files, for `JobLedger.import_json`. Give it in each run.
        fields: The names of the fields in these files, as for `JobLedger.import_json`.
        timezone: The time zone of these files, as for `JobLedger.import_json`.
        versions: The version to read of a table, such as `{"autosys_job_log": 17}`; the newest one if it is not given.
        storage_options: Options for the store of the new ledger, as for `JobLedger`.
        source_options: Options for the store of the source, without `spark`.

    Returns:
        A `MigrationReport`; its `ok` says whether nothing is wrong.

    Raises:
        InvalidInputError: An argument is wrong, or a column is missing in the source. Nothing was written.
        NotFoundError: The source has none of the tables, or not the named version.
        UnsupportedError: Without Spark: a table has a feature that a ledger cannot open. Give `spark`.

    Example:
        >>> import tempfile
        >>> from jobrota import JobLedger, migrate
        >>> old, new = JobLedger(tempfile.mkdtemp()), JobLedger(tempfile.mkdtemp())
        >>> old.log_job_execution("ae.sas", "PROD.AE", "SUCCESS")
        >>> migrate(old.root, new, step="copy").tables[0].appended
        1
        >>> migrate(old.root, new, step="copy").tables[0].appended
        0
        >>> migrate(old.root, new, step="finish").ok
        True
    """
    if step not in ("plan", "copy", "finish"):
        raise InvalidInputError(f"step is {step!r}; give plan, copy or finish")
    unknown = [name for name in (*(tables or {}), *(versions or {})) if name not in TABLES]
    if unknown:
        raise InvalidInputError(f"{unknown[0]!r} is no table of a ledger; they are {' and '.join(TABLES)}")
    if tables and spark is None:
        raise InvalidInputError("tables of other names are read by Spark only: give the session as spark= (--spark)")
    new = target if isinstance(target, JobLedger) else JobLedger(target, storage_options=storage_options)
    given = source if source is None or isinstance(source, str) else str(Path(source).absolute())
    old: LedgerSource | SparkSource | None = None
    if spark is not None and (given or tables):
        old = SparkSource(spark, given, tables or {})
    elif given:
        old = LedgerSource(given, source_options)
    if old is None and json_folder is None:
        raise InvalidInputError("there is nothing to migrate: give a source, tables with spark=, or json_folder=")
    readings = _readings(old, new, versions or {}) if old is not None else {}
    with _scratch() as scratch:
        imported, files = None, None
        if json_folder is not None:
            imported = scratch.import_json(json_folder, fields=fields, timezone=timezone)
            files = rows_of(scratch, "job_notifications")
            if step == "copy":
                imported = new.import_json(json_folder, fields=fields, timezone=timezone)
        work = _Migration(new, scratch, files, writes=step == "copy")
        if step == "finish":
            names = [*readings, "job_notifications"] if files is not None else readings
            done = [work.check(table, readings.get(table), old) for table in dict.fromkeys(names)]
        else:
            done = [work.copy(table, reading) for table, reading in readings.items()]
    return MigrationReport(step, old.name if old else fspath(json_folder or ""), new.root, done, imported)


migrate_async = twin(migrate)


class _Migration:
    """Compares tables with those of the new ledger, and writes what they lack."""

    def __init__(self, new: JobLedger, scratch: JobLedger, files: Any, *, writes: bool) -> None:
        self._new, self._scratch, self._files, self._writes = new, scratch, files, writes

    def copy(self, table: str, reading: Reading) -> TableMigration:
        """Copies what is missing. A plan copies into the scratch ledger, to see what is refused."""
        done = TableMigration(table, reading.name, reading.version, left_out=reading.left_out)
        missing: list[tuple[Row, str | None]] = []
        acknowledged: list[tuple[Row, str | None]] = []
        doubled = 0
        for found in self._differences(reading, done, self._imported(table)):
            acknowledged += [(found.row, None)] * found.acknowledge
            missing += [(found.row, flag) for flag in found.append.elements()]
            done.ahead += found.ahead
            done.stuck += found.stuck
            doubled += found.spare.total() if found.source else 0
            if found.stuck:
                self._show(done, found, "its flag changed to another word than YES")
            if len(missing) >= _BATCH or len(acknowledged) >= _BATCH:
                self._write(done, acknowledged, missing)
        self._write(done, acknowledged, missing)
        if self._writes and done.appended:
            # Rows that were there more often before are not this run's.
            again = self._differences(reading, TableMigration(table, "", None), self._imported(table))
            doubled = sum(found.spare.total() for found in again if found.source) - doubled
            if doubled > 0:
                done.extra = doubled
                done.problems.append(
                    f"{table}: {doubled:,} rows were written twice, because two migrations ran at once"
                )
        if done.refused:
            done.problems.append(f"{table}: a ledger does not take {done.refused:,} of the rows")
        if done.stuck:
            done.problems.append(f"{table}: {done.stuck:,} copied rows have another flag in the source since")
        return done

    def check(self, table: str, read: Reading | None, old: LedgerSource | SparkSource | None) -> TableMigration:
        """Compares all rows and flags. The records of the legacy files are notifications of the source."""
        reading = read or Reading("legacy files", None, lambda: iter(()))
        done = TableMigration(table, reading.name, reading.version, left_out=reading.left_out)
        both = replace(reading, rows=lambda: merged(reading.rows(), self._imported(table)))
        for found in self._differences(both, done):
            done.missing += found.append.total()
            done.extra += found.spare.total()
            done.acknowledged += found.acknowledge
            done.ahead += found.ahead
            done.stuck += found.stuck
            self._show(done, found, "the new ledger differs")
        changed = done.acknowledged + done.ahead + done.stuck
        texts = {
            f"{done.missing:,} rows of the source are not in the new ledger": done.missing,
            f"{done.extra:,} rows are only in the new ledger": done.extra,
            f"{changed:,} rows have another flag in the new ledger": changed,
        }
        done.problems += [f"{table}: {text}" for text, count in texts.items() if count]
        if read and old and (moved := self._moved(read, old, table)):
            done.problems.append(f"{table}: the source {moved} while it was compared: stop its writers")
        return done

    @staticmethod
    def _moved(reading: Reading, old: LedgerSource | SparkSource, table: str) -> str | None:
        """Says how the source changed since it was read; None if it did not."""
        if reading.version is not None:
            newest = old.version(table)
            return None if newest == reading.version else f"went from version {reading.version} to {newest}"
        again = old.read(table)
        same = again is not None and not any(differences(reading.rows(), again.rows()))
        return None if same else "changed"

    def _imported(self, table: str) -> Iterator[Counted]:
        return (
            counted_rows(self._files, table) if self._files is not None and table == "job_notifications" else iter(())
        )

    def _differences(
        self, reading: Reading, done: TableMigration, others: Iterable[Counted] = ()
    ) -> Iterator[Difference]:
        def counted() -> Iterator[Counted]:
            for row in reading.rows():
                done.rows += row[-1]
                yield row

        there = rows_of(self._new, done.table)
        return differences(counted(), iter(()) if there is None else counted_rows(there, done.table), others)

    def _write(self, done: TableMigration, acknowledged: list[Any], missing: list[Any]) -> None:
        """Writes a batch. Acknowledgements come first: a row that AutoSys has must not be pending for longer."""
        if acknowledged:
            done.acknowledged += len(acknowledged)
            if self._writes:
                self._new.acknowledge(_arrow(done.table, acknowledged), table=done.table)  # type: ignore[arg-type]
        accepted = missing
        try:
            self._log(done.table, accepted)
        except InvalidInputError:
            accepted = list(self._accepted(done, missing))
            self._log(done.table, accepted)
        done.appended += len(accepted)
        acknowledged.clear()
        missing.clear()

    def _log(self, table: str, rows: list[Any]) -> None:
        _log(self._new if self._writes else self._scratch, table, rows)

    def _accepted(self, done: TableMigration, rows: list[Any]) -> Iterator[Any]:
        """Yields the rows that a ledger takes. The scratch ledger tells, half by half."""
        try:
            _log(self._scratch, done.table, rows)
            yield from rows
        except InvalidInputError as error:
            if len(rows) == 1:
                done.refused += 1
                _add_example(done, rows[0][0], str(error).replace(" in row 0", ""), {})
                return
            middle = len(rows) // 2
            yield from self._accepted(done, rows[:middle])
            yield from self._accepted(done, rows[middle:])

    @staticmethod
    def _show(done: TableMigration, found: Difference, reason: str) -> None:
        sides = {"source_flags": found.source, "target_flags": found.target}
        flags = {side: {_shown(flag): count for flag, count in counts.items()} for side, counts in sides.items()}
        _add_example(done, found.row, reason, flags)


@contextmanager
def _scratch() -> Iterator[JobLedger]:
    """A ledger that is removed at the end."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="jobrota-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that its rows are lost with the cluster
            ledger = JobLedger(folder)
        yield ledger


def _readings(old: LedgerSource | SparkSource, new: JobLedger, versions: Mapping[str, int]) -> dict[str, Reading]:
    found = {}
    for table in TABLES:
        reading = old.read(table, versions.get(table))
        if reading is None:
            continue
        location = old.location(table)
        if location is not None and same_place(location, f"{new.root.rstrip('/')}/{table}"):
            raise InvalidInputError(f"{reading.name} is a table of the new ledger {new.root}: give another root for it")
        found[table] = reading
    if not found:
        raise NotFoundError(f"{old.name} has no table {' or '.join(TABLES)}: check the name of the source")
    return found


def _log(ledger: JobLedger, table: str, rows: list[tuple[Row, str | None]]) -> int:
    if not rows:
        return 0
    data = _arrow(table, rows)
    return ledger.log_executions(data) if table == "autosys_job_log" else ledger.log_notifications(data)


def _arrow(table: str, rows: list[tuple[Row, str | None]]) -> Any:
    from arro3.core import Array, DataType, Table

    times, *texts = zip(*(row for row, _ in rows), strict=True)
    columns: dict[str, Any] = dict(
        zip(("file_name", "job_id", "status"), (Array(text, DataType.string()) for text in texts), strict=True)
    )
    columns[TABLES[table]] = Array(times, DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    columns["autosys_update_flag"] = Array([flag for _, flag in rows], DataType.string())
    return Table.from_pydict(columns)


def _add_example(done: TableMigration, row: Row, reason: str, more: Mapping[str, Any]) -> None:
    if len(done.examples) < _SHOWN:
        at, file_name, job_id, status = row
        try:
            moment: Any = None if at is None else _EPOCH + timedelta(microseconds=at)
        except OverflowError:  # Spark knows years after 9999
            moment = f"{at} µs since 1970"
        named = {"file_name": file_name, "job_id": job_id, "status": status, "timestamp": moment}
        done.examples.append({**named, "reason": reason, **more})


def _shown(flag: str | None) -> str:
    return "NULL" if flag is None else flag
