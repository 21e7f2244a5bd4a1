"""`jobrota migrate` on tables that a real Spark made: any layout, feature, name and format, at a version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import column, run
from test_spark import EXECUTIONS, MADE, MOMENT, NOTIFICATIONS, as_spark_reads, make, table_of

pytestmark = pytest.mark.timeout(900)


KINDS = (
    "unpartitioned",
    "deletion vectors",
    "column mapping by id",
    "timestamp_ntz",
    "INT96 timestamps",
    "renamed column",
)


@pytest.mark.parametrize(
    "kind", [*KINDS, *(name for name, made in MADE.items() if made.refused and name != "times as text")]
)
def test_each_table_of_spark_is_copied_exactly(spark: Any, tmp_path: Path, kind: str) -> None:
    """With the session, also what a ledger cannot open; without it, what it can."""
    old, new = tmp_path / "old", tmp_path / "new"
    rows = make(spark, old, MADE[kind])
    before = {file: file.stat().st_mtime_ns for file in old.rglob("*")}
    ways = {"spark": spark} if MADE[kind].refused else {"spark": spark, "none": None}
    for way, session in ways.items():
        root = new / way
        for step in ("copy", "finish"):
            report = jobrota.migrate(old, root, step=step, spark=session)
            assert report.ok, report.to_dict()
        versions = {table.table: table.version for table in report.tables}
        newest = spark.sql(f"DESCRIBE HISTORY {table_of(old)} LIMIT 1").collect()[0]["version"]
        assert versions["job_notifications"] == newest
        assert as_spark_reads(spark, root) == rows
        assert set(column(jobrota.JobLedger(root).notifications(), "notification_timestamp")) == {MOMENT}
    assert {file: file.stat().st_mtime_ns for file in old.rglob("*")} == before


@pytest.fixture
def schema(spark: Any) -> Iterator[str]:
    spark.sql("CREATE SCHEMA today")
    yield "today"
    spark.sql("DROP SCHEMA today CASCADE")


def test_tables_of_a_metastore_by_name(spark: Any, schema: str, tmp_path: Path) -> None:
    """A schema names both tables; other names are given one by one. The session is in another time zone."""
    for name, columns in (("autosys_job_log", EXECUTIONS), ("job_notifications", NOTIFICATIONS)):
        spark.sql(f"CREATE TABLE {schema}.{name} ({columns}) USING delta")
    spark.sql(f"INSERT INTO {schema}.autosys_job_log VALUES ('a', 'A', TIMESTAMP'2024-03-01 12:00:00Z', 'S', 'NO')")
    spark.sql(f"INSERT INTO {schema}.autosys_job_log TABLE {schema}.autosys_job_log")
    spark.sql(f"CREATE TABLE {schema}.mine USING delta AS SELECT * FROM {schema}.autosys_job_log LIMIT 1")
    ledger = jobrota.JobLedger(tmp_path / "new")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        copy = jobrota.migrate(schema, ledger, step="copy", spark=spark)
        assert [(table.source, table.version, table.rows, table.appended) for table in copy.tables] == [
            ("`today`.`autosys_job_log`", 2, 2, 2),
            ("`today`.`job_notifications`", 0, 0, 0),
        ]
        assert {str(at) for at in column(ledger.executions(), "execution_timestamp")} == {"2024-03-01 12:00:00+00:00"}

        # What Spark changes between the runs, also with a table that was rewritten.
        spark.sql(f"UPDATE {schema}.autosys_job_log SET autosys_update_flag = 'YES'")
        spark.sql(f"INSERT INTO {schema}.autosys_job_log VALUES ('b', 'B', NULL, 'S', 'NO')")
        spark.sql(f"OPTIMIZE {schema}.autosys_job_log")
        copy = jobrota.migrate(schema, ledger, step="copy", spark=spark)
        assert (copy.tables[0].acknowledged, copy.tables[0].refused) == (2, 1)
        assert Counter(column(ledger.executions(), "autosys_update_flag")) == {"YES": 2}
        spark.sql(f"DELETE FROM {schema}.autosys_job_log WHERE job_id = 'B'")
        assert jobrota.migrate(schema, ledger, step="finish", spark=spark).ok

        # An earlier version differs, and is not the newest one.
        past = jobrota.migrate(schema, ledger, step="finish", spark=spark, versions={"autosys_job_log": 2}).tables[0]
        assert (past.version, past.ahead, past.missing, past.extra) == (2, 2, 0, 0)
        assert "went from version 2 to" in past.problems[-1]
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    named = {"autosys_job_log": "today.mine"}
    assert jobrota.migrate(None, tmp_path / "mine", step="copy", spark=spark, tables=named).tables[0].appended == 1


def test_views_and_other_formats(spark: Any, schema: str, tmp_path: Path) -> None:
    """A view gives columns their names and types. Neither it nor Parquet has versions."""
    spark.sql(f"CREATE TABLE {schema}.log (FILE STRING, job_id STRING, at STRING, status STRING) USING parquet")
    spark.sql(f"INSERT INTO {schema}.log VALUES ('a', 'A', '2024-03-01 13:00:00', 'S')")
    named = {"autosys_job_log": "today.log"}
    with pytest.raises(jobrota.InvalidInputError, match=r"the column file_name of .* is missing: migrate a view"):
        jobrota.migrate(None, tmp_path / "new", spark=spark, tables=named)
    view = f"""CREATE TEMPORARY VIEW migrated AS SELECT file AS file_name, job_id, status, 'NO' AS autosys_update_flag,
        to_utc_timestamp(at, 'Europe/Berlin') AS execution_timestamp FROM {schema}.log"""
    spark.sql(view)
    try:
        named = {"autosys_job_log": "migrated"}
        for step in ("copy", "finish"):
            report = jobrota.migrate(None, tmp_path / "new", step=step, spark=spark, tables=named)
            assert report.ok
            assert report.tables[0].version is None
        times = column(jobrota.JobLedger(tmp_path / "new").executions(), "execution_timestamp")
        assert [str(at) for at in times] == ["2024-03-01 12:00:00+00:00"]
    finally:
        spark.catalog.dropTempView("migrated")


def test_what_spark_cannot_read(spark: Any, tmp_path: Path) -> None:
    make(spark, tmp_path / "old", MADE["times as text"])
    with pytest.raises(jobrota.InvalidInputError, match=r"notification_timestamp of .* is string, not timestamp"):
        jobrota.migrate(tmp_path / "old", tmp_path / "new", spark=spark)
    with pytest.raises(jobrota.NotFoundError, match="none has no table"):
        jobrota.migrate("none", tmp_path / "new", spark=spark)
    with pytest.raises(jobrota.NotFoundError, match="has no table"):
        jobrota.migrate(tmp_path / "other", tmp_path / "new", spark=spark)
    make(spark, tmp_path / "good", MADE["unpartitioned"])
    with pytest.raises(jobrota.StorageError, match="Spark cannot read"):
        jobrota.migrate(tmp_path / "good", tmp_path / "new", spark=spark, versions={"autosys_job_log": 99})
    with pytest.raises(jobrota.InvalidInputError, match="a table of the new ledger"):
        jobrota.migrate(tmp_path / "good", tmp_path / "good", spark=spark)


def test_the_command_uses_the_session_of_the_process(
    spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(spark, tmp_path / "old", MADE["append only"])
    new = tmp_path / "new"
    assert run("migrate", tmp_path / "old", "--ledger", new, "--copy") == 2
    error = capsys.readouterr().err
    assert "appendOnly" in error
    assert "to migrate it as it is, read it with spark= (--spark)" in error
    assert run("migrate", tmp_path / "old", "--ledger", new, "--copy", "--spark") == 0
    named = f"job_notifications={tmp_path}/old/job_notifications"
    assert run("migrate", "--ledger", new, "--finish", "--spark", "--table", named) == 0
    assert as_spark_reads(spark, new).total() == 3
