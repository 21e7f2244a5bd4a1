"""Many callers that log at the same moment, and what is durable when a process ends: through the wheel."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import jobrota


def commits(ledger: Path, table: str = "job_notifications") -> int:
    return len(list((ledger / table / "_delta_log").glob("[0-9]*.json")))


def file_names(ledger: jobrota.JobLedger) -> list[str]:
    return sorted(str(name) for name in ledger.pending_notifications()["file_name"].to_pylist())


def test_threads_share_commits_and_every_row_is_there_once(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path / "ledger")
    barrier = threading.Barrier(32)

    def log(thread: int) -> None:
        barrier.wait()
        for number in range(25):
            ledger.log_job_completion(f"{thread:02}-{number:02}", "JOB", "SUCCESS")

    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file_names(ledger) == sorted(f"{thread:02}-{number:02}" for thread in range(32) for number in range(25))
    assert commits(tmp_path / "ledger") < 400


def test_refused_row_fails_its_own_task(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path / "ledger")

    async def log(number: int) -> None:
        await ledger.log_job_completion_async(f"{number:03}", "JOB", "" if number % 10 == 0 else "SUCCESS")

    async def everybody() -> list[BaseException | None]:
        return await asyncio.gather(*(log(number) for number in range(200)), return_exceptions=True)

    outcomes = asyncio.run(everybody())
    refused = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, jobrota.InvalidInputError)]
    assert refused == list(range(0, 200, 10))
    assert file_names(ledger) == [f"{number:03}" for number in range(200) if number % 10]
    assert commits(tmp_path / "ledger") < 100


def test_begun_writes_finish_at_exit(tmp_path: Path) -> None:
    code = """
import asyncio, sys
import jobrota
ledger = jobrota.JobLedger(sys.argv[1])
ledger.log_job_completion("first", "JOB", "SUCCESS")
async def main():
    tasks = [asyncio.ensure_future(ledger.log_job_completion_async(f"{n:03}", "JOB", "SUCCESS")) for n in range(100)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    print(len(done))
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ledger")], check=True, capture_output=True, text=True, timeout=60
    )
    names = file_names(jobrota.JobLedger(tmp_path / "ledger"))
    assert len(names) >= int(ended.stdout) + 1
    assert max(Counter(names).values()) == 1
    leftovers = [path.name for path in (tmp_path / "ledger").rglob("*") if "#" in path.name or path.suffix == ".tmp"]
    assert leftovers == []


def test_commit_timeout_names_winner(tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    stop = threading.Event()
    hasty = jobrota.JobLedger(root, commit_timeout=0)
    hasty.log_job_completion("first", "JOB", "SUCCESS")
    others = [jobrota.JobLedger(root) for _ in range(2)]

    def keep_winning(ledger: jobrota.JobLedger) -> None:
        while not stop.is_set():
            ledger.log_job_completion("other", "JOB", "SUCCESS")

    threads = [threading.Thread(target=keep_winning, args=(ledger,)) for ledger in others]
    for thread in threads:
        thread.start()
    logged, lost = 1, None
    try:
        # Acknowledging reads and plans before it commits, and so loses soon.
        for _ in range(2_000):
            try:
                hasty.acknowledge(hasty.pending_notifications())
                logged += 1
            except jobrota.ConflictError as error:
                lost = error
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert lost is not None
    assert lost.retryable
    assert "WRITE by jobrota/" in str(lost)
    rows = hasty.notifications()
    assert sum(name == "first" for name in rows["file_name"].to_pylist()) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
def test_a_time_limit_that_is_none_is_refused(tmp_path: Path, timeout: object) -> None:
    with pytest.raises(jobrota.InvalidInputError, match="commit_timeout"):
        jobrota.JobLedger(tmp_path / "ledger", commit_timeout=timeout)  # type: ignore[arg-type]


def table_with(root: Path, writer_features: list[str], configuration: dict[str, str]) -> Path:
    """A notifications table as another client might have made it."""
    log = root / "job_notifications" / "_delta_log"
    log.mkdir(parents=True)
    names = ["file_name", "job_id", "status", "autosys_update_flag", "notification_timestamp"]
    fields: list[dict[str, object]] = [
        {"name": name, "type": "timestamp" if "time" in name else "string", "nullable": True, "metadata": {}}
        for name in names
    ]
    protocol = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": writer_features}
    metadata = {
        "id": "1",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": [],
        "configuration": configuration,
        "createdTime": 1,
    }
    actions = [{"protocol": protocol}, {"metaData": metadata}]
    (log / f"{0:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    return log


@pytest.mark.parametrize(
    ("feature", "configuration"),
    [
        ("checkConstraints", {"delta.constraints.c": "job_id <> ''"}),
        ("generatedColumns", {}),
        ("changeDataFeed", {"delta.enableChangeDataFeed": "true"}),
        ("appendOnly", {"delta.appendOnly": "true"}),
        ("fromTheFuture", {}),
    ],
)
def test_unwritable_table_is_refused_at_open(tmp_path: Path, feature: str, configuration: dict[str, str]) -> None:
    log = table_with(tmp_path / "ledger", [feature], configuration)
    with pytest.raises(jobrota.UnsupportedError, match=feature) as refused:
        jobrota.JobLedger(tmp_path / "ledger")
    assert not refused.value.retryable
    assert "another root" in str(refused.value)
    assert [path.name for path in log.iterdir()] == [f"{0:020}.json"]


def test_wrong_schema_names_column(tmp_path: Path) -> None:
    log = table_with(tmp_path / "ledger", [], {})
    entry = log / f"{0:020}.json"
    entry.write_text(entry.read_text().replace("file_name", "filename"))
    with pytest.raises(jobrota.UnsupportedError, match="no column 'file_name'"):
        jobrota.JobLedger(tmp_path / "ledger")
