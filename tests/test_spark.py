"""A real Spark with Delta Lake: each side reads and writes the tables of the other, also at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import column

pytestmark = pytest.mark.timeout(900)

NOTIFICATIONS = (
    "file_name STRING, job_id STRING, status STRING, autosys_update_flag STRING, notification_timestamp TIMESTAMP"
)
EXECUTIONS = "file_name STRING, job_id STRING, execution_timestamp TIMESTAMP, status STRING, autosys_update_flag STRING"
MOMENT = datetime(2024, 3, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)

Rows = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class Made:
    """How Spark makes a table."""

    clause: str = ""
    """What follows `USING delta`."""
    properties: dict[str, str] = field(default_factory=dict)
    columns: Callable[[str], str] = str
    """Changes the column list."""
    then: tuple[str, ...] = ()
    """Statements that follow the first rows."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of the session, while the table is made."""
    inserts: int = 1
    """Statements that insert, so that checkpoints fall due."""
    refused: str | None = None
    """What opening says, where the table cannot be used."""
    executions: bool = False
    """Spark makes the other table as well; else we do."""
    leaves: str | None = None
    """A file that Spark must have left, for the test to be about what its name says."""


BY_FLAG = "PARTITIONED BY (autosys_update_flag)"

MADE = {
    "unpartitioned": Made(executions=True),
    "partitioned by flag": Made(BY_FLAG, executions=True),
    "partitioned by job and flag": Made("PARTITIONED BY (job_id, autosys_update_flag)"),
    "deletion vectors": Made(
        properties={"delta.enableDeletionVectors": "true"},
        then=("DELETE FROM {table} WHERE job_id LIKE 'GONE%'",),
        executions=True,
        leaves="deletion_vector_*.bin",
    ),
    "column mapping by name": Made(properties={"delta.columnMapping.mode": "name"}),
    "column mapping by name, partitioned": Made(BY_FLAG, properties={"delta.columnMapping.mode": "name"}),
    "column mapping by id": Made(properties={"delta.columnMapping.mode": "id"}),
    "renamed column": Made(
        properties={"delta.columnMapping.mode": "name"},
        columns=lambda columns: columns.replace("job_id", "job"),
        then=("ALTER TABLE {table} RENAME COLUMN job TO job_id",),
    ),
    "classic checkpoint": Made(
        properties={"delta.checkpointInterval": "2"}, inserts=5, leaves="_delta_log/*4.checkpoint.parquet"
    ),
    "checkpoint v2": Made(
        properties={"delta.checkpointPolicy": "v2", "delta.checkpointInterval": "2"},
        inserts=5,
        leaves="_delta_log/_sidecars/*.parquet",
    ),
    "checkpoint with struct statistics": Made(
        BY_FLAG,
        properties={
            "delta.checkpoint.writeStatsAsJson": "false",
            "delta.checkpoint.writeStatsAsStruct": "true",
            "delta.checkpointInterval": "2",
        },
        inserts=5,
        leaves="_delta_log/*4.checkpoint.parquet",
    ),
    "clustered": Made("CLUSTER BY (job_id)"),
    "in-commit timestamps": Made(properties={"delta.enableInCommitTimestamps": "true"}),
    "timestamp_ntz": Made(columns=lambda columns: columns.replace("TIMESTAMP", "TIMESTAMP_NTZ")),
    "one more column": Made(columns=lambda columns: columns + ", note STRING"),
    "not null": Made(columns=lambda columns: columns.replace("STRING", "STRING NOT NULL")),
    "reader 3, writer 7": Made(properties={"delta.minReaderVersion": "3", "delta.minWriterVersion": "7"}),
    "INT96 timestamps": Made(settings={"spark.sql.parquet.outputTimestampType": "INT96"}),
    "no statistics": Made(properties={"delta.dataSkippingNumIndexedCols": "0"}),
    "optimized writes": Made(
        properties={"delta.autoOptimize.optimizeWrite": "true", "delta.autoOptimize.autoCompact": "true"}
    ),
    "zstd": Made(settings={"spark.sql.parquet.compression.codec": "zstd"}),
    "column defaults": Made(
        columns=lambda columns: columns.replace(
            "autosys_update_flag STRING", "autosys_update_flag STRING DEFAULT 'NO'"
        ),
        properties={"delta.feature.allowColumnDefaults": "supported"},
    ),
    # Legacy writer versions stand for all features up to them, used or not.
    "writer version 3": Made(properties={"delta.minReaderVersion": "1", "delta.minWriterVersion": "3"}),
    "writer version 4": Made(BY_FLAG, properties={"delta.minReaderVersion": "1", "delta.minWriterVersion": "4"}),
    "column mapping, writer version 5": Made(
        properties={
            "delta.minReaderVersion": "2",
            "delta.minWriterVersion": "5",
            "delta.columnMapping.mode": "name",
            "delta.checkpointInterval": "2",
        },
        inserts=5,
    ),
    "names in capitals": Made(columns=lambda columns: columns.replace("job_id", "JOB_ID"), refused="job_id"),
    "times as text": Made(
        columns=lambda columns: columns.replace("timestamp TIMESTAMP", "timestamp STRING"),
        refused="notification_timestamp",
    ),
    "one more column, with a default": Made(
        columns=lambda columns: columns + ", note STRING DEFAULT 'none'",
        properties={"delta.feature.allowColumnDefaults": "supported"},
        refused="note",
    ),
    "row tracking": Made(properties={"delta.enableRowTracking": "true"}, refused="rowTracking"),
    "change data feed": Made(properties={"delta.enableChangeDataFeed": "true"}, refused="changeDataFeed"),
    "append only": Made(properties={"delta.appendOnly": "true"}, refused="appendOnly"),
    "generated column": Made(
        columns=lambda columns: columns + ", words STRING GENERATED ALWAYS AS (upper(status))",
        refused="generatedColumns",
    ),
    "CHECK constraint": Made(
        then=("ALTER TABLE {table} ADD CONSTRAINT known CHECK (autosys_update_flag IN ('YES', 'NO', 'GONE'))",),
        refused="checkConstraints",
    ),
    "identity column": Made(
        columns=lambda columns: columns + ", id BIGINT GENERATED ALWAYS AS IDENTITY", refused="identityColumns"
    ),
}


def table_of(root: Path, name: str = "job_notifications") -> str:
    """How Spark's SQL names a table of the ledger."""
    return f"delta.`{root}/{name}`"


def make(spark: Any, root: Path, made: Made) -> Rows:
    """Has Spark make the tables, with the same rows in each; gives back those of job_notifications."""
    rows: Rows = Counter()
    tables = [("job_notifications", NOTIFICATIONS, "notification_timestamp")]
    if made.executions:
        tables.append(("autosys_job_log", EXECUTIONS, "execution_timestamp"))
    for setting, value in made.settings.items():
        spark.conf.set(setting, value)
    try:
        for name, columns, time in tables:
            table = table_of(root, name)
            listed = ", ".join(f"'{key}' = '{value}'" for key, value in made.properties.items())
            properties = f"TBLPROPERTIES ({listed})" if listed else ""
            changed = made.columns(columns)
            spark.sql(f"CREATE TABLE {table} ({changed}) USING delta {made.clause} {properties}")
            job = "job_id" if "job_id" in changed.lower() else "job"
            for number in range(made.inserts):
                inserted = [(f"NO{number}", "NO"), (f"YES{number}", "YES"), (f"GONE{number}", "NO")]
                values = ", ".join(
                    f"('spark.sas', '{who}', 'SUCCESS', '{flag}', TIMESTAMP'{MOMENT:%Y-%m-%d %H:%M:%S.%f}')"
                    for who, flag in inserted
                )
                spark.sql(
                    f"INSERT INTO {table} (file_name, {job}, status, autosys_update_flag, {time}) VALUES {values}"
                )
                if name == "job_notifications":
                    rows.update(("spark.sas", who, "SUCCESS", flag) for who, flag in inserted)
            for statement in made.then:
                spark.sql(statement.format(table=table))
    finally:
        for setting in made.settings:
            spark.conf.unset(setting)
    if any(statement.startswith("DELETE") for statement in made.then):
        rows = Counter(row for row in rows.elements() if not row[1].startswith("GONE"))
    return rows


def as_spark_reads(spark: Any, root: Path, name: str = "job_notifications") -> Rows:
    """The rows of a table of the ledger without their times, as Spark reads them."""
    selected = spark.sql(f"SELECT file_name, job_id, status, autosys_update_flag FROM {table_of(root, name)}")
    return Counter(tuple(row) for row in selected.collect())


def as_we_read(ledger: jobrota.JobLedger) -> Rows:
    """The same, as the ledger reads them."""
    table = ledger.notifications()
    return Counter(
        zip(
            *(column(table, name) for name in ("file_name", "job_id", "status", "autosys_update_flag")),
            strict=True,
        )
    )


def acknowledged(rows: Rows) -> Rows:
    """The same rows with nothing pending."""
    return Counter((*row[:3], "YES" if row[3] == "NO" else row[3]) for row in rows.elements())


@pytest.mark.parametrize("kind", [name for name, made in MADE.items() if made.refused is None])
def test_a_table_that_spark_made_is_used_in_full(spark: Any, tmp_path: Path, kind: str) -> None:
    rows = make(spark, tmp_path, MADE[kind])
    leaves = MADE[kind].leaves
    assert leaves is None or list((tmp_path / "job_notifications").glob(leaves)), f"Spark made no {leaves}"
    ledger = jobrota.JobLedger(tmp_path)
    assert as_we_read(ledger) == rows
    assert set(column(ledger.notifications(), "notification_timestamp")) == {MOMENT}
    given = ledger.pending_notifications()
    assert given.num_rows == sum(row[3] == "NO" for row in rows.elements())

    # A row that came after the given ones were read stays pending, though it is of the same file and job.
    ledger.log_job_completion("spark.sas", "NO0", "SUCCESS")
    assert ledger.acknowledge(given) == given.num_rows
    rows = acknowledged(rows)
    rows["spark.sas", "NO0", "SUCCESS", "NO"] += 1
    assert as_we_read(ledger) == rows

    ledger.log_job_execution("ours.sas", "OURS", "SUCCESS")
    ledger.log_job_completion("ours.sas", "OURS", "SUCCESS")
    rows["ours.sas", "OURS", "SUCCESS", "NO"] += 1
    assert as_spark_reads(spark, tmp_path) == rows
    sent = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append((file_name, job_id, status))
        return True

    assert jobrota.AutosysUpdater(ledger, send).run().delivered == 2
    assert sorted(sent) == [("ours.sas", "OURS", "SUCCESS"), ("spark.sas", "NO0", "SUCCESS")]
    rows = acknowledged(rows)
    if MADE[kind].executions:
        executions = as_spark_reads(spark, tmp_path, "autosys_job_log")
        assert executions["ours.sas", "OURS", "SUCCESS", "YES"] == 1, "the delivery settles the execution as well"
        assert executions.total() == rows.total() - 1

    # Spark goes on with what we wrote.
    changed = spark.sql(f"UPDATE {table_of(tmp_path)} SET status = 'SEEN' WHERE job_id IN ('OURS', 'NO0')").collect()
    assert changed[0].num_affected_rows == 3
    assert Counter(row[:2] for row in as_we_read(ledger).elements() if row[2] == "SEEN") == {
        ("ours.sas", "OURS"): 1,
        ("spark.sas", "NO0"): 2,
    }
    assert as_we_read(ledger).total() == rows.total()


@pytest.mark.parametrize("kind", [name for name, made in MADE.items() if made.refused])
def test_unwritable_table_is_refused_at_open(spark: Any, tmp_path: Path, kind: str) -> None:
    rows = make(spark, tmp_path, MADE[kind])
    before = sorted((tmp_path / "job_notifications").rglob("*"))
    with pytest.raises(jobrota.errors.UnsupportedError, match=str(MADE[kind].refused)) as refusal:
        jobrota.JobLedger(tmp_path)
    assert not refusal.value.retryable
    assert "another root" in str(refusal.value), "it says what to do"
    assert sorted((tmp_path / "job_notifications").rglob("*")) == before
    assert as_spark_reads(spark, tmp_path) == rows


@pytest.mark.parametrize("clause", ["", BY_FLAG], ids=["unpartitioned", "partitioned"])
def test_odd_rows_of_spark_are_read_shown_and_acknowledged(spark: Any, tmp_path: Path, clause: str) -> None:
    table = table_of(tmp_path)
    spark.sql(f"CREATE TABLE {table} ({NOTIFICATIONS}) USING delta {clause}")
    time = "TIMESTAMP'1969-12-31 23:59:59.999999'"
    odd = [
        ("NULL", "'N'", "'SUCCESS'", "'NO'", time),
        ("'n'", "NULL", "'SUCCESS'", "'NO'", time),
        ("'n'", "'N'", "NULL", "'NO'", time),
        ("'n'", "'N'", "'SUCCESS'", "'NO'", "NULL"),
        ("''", "''", "''", "'NO'", "TIMESTAMP'0001-01-01 00:00:00'"),
        ("'a/b=c%20d'", "'日本 \\'quoted\\''", "'x'", "'NO'", "TIMESTAMP'9999-12-31 23:59:59.999999'"),
        ("'kept'", "'K'", "'SUCCESS'", "NULL", time),
        ("'kept'", "'K'", "'SUCCESS'", "'no'", time),
        ("'kept'", "'K'", "'SUCCESS'", "'Yes'", time),
        ("'kept'", "'K'", "'SUCCESS'", "''", time),
    ]
    spark.sql(f"INSERT INTO {table} VALUES {', '.join('(' + ', '.join(row) + ')' for row in odd)}")
    ledger = jobrota.JobLedger(tmp_path)
    rows = as_spark_reads(spark, tmp_path)
    assert as_we_read(ledger) == rows
    pending = ledger.pending_notifications()
    assert pending.num_rows == 6
    assert ledger.acknowledge(pending) == 6
    assert ledger.acknowledge(pending) == 0
    assert as_spark_reads(spark, tmp_path) == acknowledged(rows)
    assert ledger.summary().notifications["pending"] == 0


def test_todays_sql_works_on_our_tables(spark: Any, tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    ledger.log_job_execution("ours.sas", "OURS", "SUCCESS")
    ledger.log_job_completion("ours.sas", "OURS", "SUCCESS")
    executions, notifications = table_of(tmp_path, "autosys_job_log"), table_of(tmp_path)

    # By position, as the notebooks of today insert.
    spark.sql(f"INSERT INTO {executions} VALUES ('sql.sas', 'SQL', current_timestamp(), 'SUCCESS', 'NO')")
    spark.sql(f"INSERT INTO {notifications} VALUES ('sql.sas', 'SQL', 'SUCCESS', 'NO', current_timestamp())")
    assert sorted(column(ledger.fetch_unprocessed_updates(), "job_id")) == ["OURS", "SQL"]
    unprocessed = spark.sql(f"SELECT * FROM {executions} WHERE autosys_update_flag = 'NO'").collect()
    assert sorted(row.job_id for row in unprocessed) == ["OURS", "SQL"]

    spark.sql(f"UPDATE {executions} SET autosys_update_flag = 'YES' WHERE file_name = 'sql.sas' AND job_id = 'SQL'")
    assert column(ledger.fetch_unprocessed_updates(), "job_id") == ["OURS"]
    assert ledger.update_autosys_flag("ours.sas", "OURS") == 1
    assert spark.sql(f"SELECT * FROM {executions} WHERE autosys_update_flag = 'NO'").count() == 0

    spark.sql(
        f"MERGE INTO {notifications} AS t USING (SELECT 'sql.sas' AS file_name, 'FAILURE' AS status UNION ALL "
        "SELECT 'new.sas', 'SUCCESS') AS s ON t.file_name = s.file_name "
        "WHEN MATCHED THEN UPDATE SET t.status = s.status "
        "WHEN NOT MATCHED THEN INSERT (file_name, job_id, status, autosys_update_flag, notification_timestamp) "
        "VALUES (s.file_name, 'NEW', s.status, 'NO', current_timestamp())"
    )
    pending = ledger.pending_notifications()
    assert sorted(zip(column(pending, "job_id"), column(pending, "status"), strict=True)) == [
        ("NEW", "SUCCESS"),
        ("OURS", "SUCCESS"),
        ("SQL", "FAILURE"),
    ]
    spark.sql(f"DELETE FROM {notifications} WHERE job_id = 'NEW'")
    # What a delete took is not there to be acknowledged; the rest is.
    assert ledger.acknowledge(pending) == 2
    assert spark.sql(f"SELECT * FROM {notifications} WHERE autosys_update_flag = 'NO'").count() == 0


def test_sparks_maintenance_works_on_our_tables(spark: Any, tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    for number in range(25):
        ledger.log_job_completion("ours.sas", f"J{number}", "SUCCESS")
    ledger.acknowledge(ledger.pending_notifications(limit=5))
    table = table_of(tmp_path)
    given = ledger.pending_notifications()
    metrics = spark.sql(f"OPTIMIZE {table}").collect()[0].metrics
    assert metrics.numFilesRemoved >= 20
    assert ledger.acknowledge(given) == 20, "rows read before the OPTIMIZE are found in its files"
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.logRetentionDuration' = 'interval 14 days')")
    ledger.log_job_completion("ours.sas", "AFTER ALTER", "SUCCESS")
    spark.sql("SET spark.databricks.delta.retentionDurationCheck.enabled = false")
    try:
        spark.sql(f"VACUUM {table} RETAIN 0 HOURS")
    finally:
        spark.sql("RESET spark.databricks.delta.retentionDurationCheck.enabled")
    ledger.log_job_completion("ours.sas", "AFTER VACUUM", "SUCCESS")
    assert sorted(column(ledger.pending_notifications(), "job_id")) == ["AFTER ALTER", "AFTER VACUUM"]
    assert as_we_read(ledger) == as_spark_reads(spark, tmp_path)
    assert as_spark_reads(spark, tmp_path).total() == 27


def test_our_commits_are_readable_in_the_history(spark: Any, tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    ledger.log_job_completion("ours.sas", "J", "SUCCESS")
    ledger.acknowledge(ledger.pending_notifications())
    history = spark.sql(f"DESCRIBE HISTORY {table_of(tmp_path)}").orderBy("version").collect()
    # Where a commit does not say, Spark takes it for one that is not blind.
    assert [(row.operation, bool(row.isBlindAppend)) for row in history] == [
        ("CREATE TABLE", True),
        ("WRITE", True),
        ("UPDATE", False),
    ]
    assert {row.engineInfo.split("/")[0] for row in history} == {"jobrota"}
    assert history[2].operationParameters["predicate"]
    detail = spark.sql(f"DESCRIBE DETAIL {table_of(tmp_path)}").collect()[0]
    assert (detail.minReaderVersion, detail.minWriterVersion) == (1, 2)
    assert detail.partitionColumns == ["autosys_update_flag"]


def test_sparks_time_travel_and_update_see_our_appends(spark: Any, tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    for number in range(3):
        ledger.log_job_completion("ours.sas", f"J{number}", "SUCCESS")
    at_first = spark.sql(f"SELECT * FROM {table_of(tmp_path)} VERSION AS OF 1").count()
    assert at_first == 1
    changed = spark.sql(f"UPDATE {table_of(tmp_path)} SET autosys_update_flag = 'YES' WHERE autosys_update_flag = 'NO'")
    assert changed.collect()[0].num_affected_rows == 3
    assert ledger.pending_notifications().num_rows == 0


@pytest.mark.parametrize("made_by", ["us", "spark"])
def test_both_write_at_once_while_spark_optimizes(spark: Any, tmp_path: Path, made_by: str) -> None:
    """Every row once, at the end as many as were written; bounded by counts, not by time."""
    each, inserts, updates, optimizes = 150, 6, 4, 4
    table = table_of(tmp_path)
    if made_by == "spark":
        spark.sql(f"CREATE TABLE {table} ({NOTIFICATIONS}) USING delta")
    ledger = jobrota.JobLedger(tmp_path)
    ledger.log_job_completion("ours.sas", "FIRST", "SUCCESS")
    conflicts: Counter[str] = Counter()
    acknowledged_by_us: set[str] = set()
    writing = threading.Event()

    def sql(statement: str) -> None:
        """Spark has no retries of its own."""
        for _ in range(50):
            try:
                spark.sql(statement).collect()
                return
            except Exception as error:
                if "DELTA_CONCURRENT" not in str(error) and "Concurrent" not in str(error):
                    raise
                conflicts[statement.split()[0]] += 1
        raise AssertionError(f"Spark lost 50 races with {statement}")

    def we_log(thread: int) -> None:
        for number in range(each):
            ledger.log_job_completion("ours.sas", f"ours {thread}.{number}", "SUCCESS")

    def we_acknowledge() -> None:
        while not writing.is_set():
            pending = ledger.pending_notifications(limit=20)
            ledger.acknowledge(pending)
            acknowledged_by_us.update(column(pending, "job_id"))

    def we_log_in_another_process() -> None:
        code = (
            "import sys, jobrota; ledger = jobrota.JobLedger(sys.argv[1])\n"
            f"for n in range({each}): ledger.log_job_completion('ours.sas', f'ours p.{{n}}', 'SUCCESS')"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=600)

    def spark_inserts_and_updates() -> None:
        for number in range(inserts):
            sql(f"INSERT INTO {table} VALUES ('sql.sas', 'sql {number}', 'SUCCESS', 'NO', current_timestamp())")
            if number < updates:
                sql(f"UPDATE {table} SET autosys_update_flag = 'YES' WHERE job_id = 'sql {number}'")

    def spark_optimizes() -> None:
        for _ in range(optimizes):
            sql(f"OPTIMIZE {table}")

    acknowledging = threading.Thread(target=we_acknowledge)
    acknowledging.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            work = [pool.submit(we_log, thread) for thread in range(3)]
            others = (we_log_in_another_process, spark_inserts_and_updates, spark_optimizes)
            work += [pool.submit(job) for job in others]
            for job in work:
                job.result()
    finally:
        writing.set()
        acknowledging.join()
    print(f"conflicts that Spark reported and the test retried: {dict(conflicts)}")
    expected = {"FIRST"}
    expected |= {f"ours {thread}.{number}" for thread in (0, 1, 2, "p") for number in range(each)}
    expected |= {f"sql {number}" for number in range(inserts)}
    rows = as_spark_reads(spark, tmp_path)
    assert rows == as_we_read(ledger)
    assert Counter(row[1] for row in rows.elements()) == Counter(expected)
    flags = {row[1]: row[3] for row in rows}
    assert {flags[job] for job in acknowledged_by_us} <= {"YES"}
    assert acknowledged_by_us
    assert {flags[f"sql {number}"] for number in range(updates)} == {"YES"}
    history = spark.sql(f"DESCRIBE HISTORY {table}").collect()
    done = Counter(row.operation for row in history if "Spark" in row.engineInfo)
    assert done["OPTIMIZE"] >= 1, "some OPTIMIZE had something to do"
    assert (done["WRITE"], done["UPDATE"]) == (inserts, updates)


def test_the_deltalake_package_works_on_our_tables(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    ledger = jobrota.JobLedger(tmp_path)
    for number in range(12):
        ledger.log_job_completion("ours.sas", f"J{number}", "SUCCESS")
    path = str(tmp_path / "job_notifications")
    table = deltalake.DeltaTable(path)
    assert table.to_pyarrow_table().num_rows == 12
    given = ledger.pending_notifications()
    # What it read of ours it may append again, to its own name.
    deltalake.write_deltalake(path, given, mode="append")
    table = deltalake.DeltaTable(path)
    table.optimize.compact()
    assert ledger.pending_notifications().num_rows == 24
    assert ledger.acknowledge(given) == 12, "of two identical rows, one was given"
    assert ledger.pending_notifications().num_rows == 12
    table = deltalake.DeltaTable(path)
    table.update(updates={"autosys_update_flag": "'YES'"}, predicate="autosys_update_flag = 'NO'")
    assert ledger.pending_notifications().num_rows == 0
    ledger.log_job_completion("ours.sas", "after", "SUCCESS")
    assert deltalake.DeltaTable(path).to_pyarrow_table().num_rows == 25


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")
def test_a_table_in_hand_becomes_a_data_frame(spark: Any, tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path)
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    ledger.log_job_execution("b.sas", "B", "FAILURE")
    table = ledger.pending_executions()
    frame = table.to_spark(spark)
    assert ", ".join(f"{name} {kind.upper()}" for name, kind in frame.dtypes) == EXECUTIONS
    assert spark.createDataFrame(table).schema == frame.schema
    assert frame.where("status = 'SUCCESS'").count() == 1
    stored = spark.read.format("delta").load(str(tmp_path / "autosys_job_log"))
    for made in (frame, spark.createDataFrame(table), spark.createDataFrame(table.to_pandas())):
        assert made.select(stored.columns).exceptAll(stored).count() == 0
        assert [row.asDict() for row in made.orderBy("job_id").collect()] == [
            row.asDict() for row in stored.orderBy("job_id").collect()
        ]


def test_a_table_without_values_becomes_a_data_frame(spark: Any, ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    jobrota.AutosysUpdater(ledger, lambda *row: True).run()
    assert ledger.deliveries().to_spark(spark).where("vm is null").count() == 2
    for table in (ledger.pending_notifications(), jobrota.RoundRobinSelector(["vm1"], cursor="process").state()):
        frame = table.to_spark(spark)
        assert frame.count() == table.num_rows
        assert frame.columns == table.column_names
