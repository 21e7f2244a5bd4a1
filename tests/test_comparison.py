"""The comparison from Python, against the sandbox's SAS Viya over real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import column, runner

JOBS = 4


@pytest.fixture(scope="module")
def result(sandbox: jobrota.Sandbox, tmp_path_factory: pytest.TempPathFactory) -> jobrota.ComparisonResult:
    return runner(sandbox, mode="all", limit_jobs=JOBS, results_dir=tmp_path_factory.mktemp("results")).run(
        progress=False
    )


def test_result_file_matches_result(result: jobrota.ComparisonResult) -> None:
    assert result.path is not None
    assert re.fullmatch(r"pooled_jobs_comparison_\d{8}_\d{6}\.json", result.path.name)
    assert json.loads(result.path.read_text()) == result.to_dict()


def test_the_result_has_every_key_that_its_readers_need(
    result: jobrota.ComparisonResult, sandbox: jobrota.Sandbox
) -> None:
    values = result.to_dict()
    assert values["metadata"]["execution_timestamp"]
    assert values["metadata"]["base_url"].rstrip("/") == sandbox.viya_url.rstrip("/")
    assert values["metadata"]["speed"] == sandbox.speed
    names = set()
    for arm in ("sequential_execution", "async_execution"):
        section = values[arm]
        assert section["context_name"]
        assert section["total_duration"] > 0
        assert (section["successful_jobs"], section["failed_jobs"]) == (JOBS, 0)
        assert len(section["jobs"]) == JOBS
        for job in section["jobs"]:
            names.add(job["unique_job_name"])
            assert job["name"]
            assert job["duration"] > 0
            data = job["metrics"]["orchestrator_data"]
            assert data["execution_host"]
            assert data["queue_wait_seconds"] >= 0
            assert data["execution_seconds"] > 0
            assert data["cpu_cores"] > 0
            assert data["memory_mb"] > 0
    assert len(names) == 2 * JOBS


def test_gain_is_percent_of_the_sequential_time(result: jobrota.ComparisonResult) -> None:
    values = result.to_dict()
    sequential, concurrent = (values[arm]["total_duration"] for arm in ("sequential_execution", "async_execution"))
    assert values["comparison"]["time_saved"] == pytest.approx(sequential - concurrent, abs=0.01)
    assert values["comparison"]["efficiency_gain"] == pytest.approx(100 * (1 - concurrent / sequential), abs=0.01)


def test_tables_have_a_row_per_job_and_arm(result: jobrota.ComparisonResult) -> None:
    jobs = result.jobs()
    assert jobs.num_rows == 2 * JOBS
    assert {"arm", "sequence", "job", "context", "host", "state"} <= set(jobs.column_names)
    assert result.arms().num_rows == 2
    assert result.hosts().num_rows >= 1


def test_a_result_holds_no_token(result: jobrota.ComparisonResult, sandbox: jobrota.Sandbox) -> None:
    assert result.path is not None
    text = result.path.read_text() + repr(result) + result._repr_html_()
    for name, value in json.loads(sandbox.tokens.read_text()).items():
        if name.endswith("token"):
            assert value not in text


@pytest.mark.parametrize("only", ["sequential", "async"])
def test_one_arm_alone(sandbox: jobrota.Sandbox, only: str) -> None:
    values = runner(sandbox, mode="all", limit_jobs=1, **{f"{only}_only": True}).run(progress=False).to_dict()
    other = {"sequential": "async", "async": "sequential"}[only]
    assert values[f"{only}_execution"]["successful_jobs"] == 1
    assert not (values.get(f"{other}_execution") or {}).get("jobs")


def test_batches_and_progress(sandbox: jobrota.Sandbox) -> None:
    events: list[dict[str, Any]] = []
    result = runner(sandbox, mode="batch", limit_jobs=JOBS, concurrent=2, async_only=True).run(progress=events.append)
    assert result.failed_jobs == 0
    assert max(event["in_flight"] for event in events) == 2
    assert events[-1]["done"] == events[-1]["total"] == JOBS
    assert set(events[0]) >= {"arm", "done", "failed", "in_flight", "total", "job", "state"}


def test_what_a_progress_function_raises_comes_through(sandbox: jobrota.Sandbox) -> None:
    def broken(event: dict[str, Any]) -> None:
        raise RuntimeError("the bar broke")

    with pytest.raises(RuntimeError, match="the bar broke"):
        runner(sandbox, mode="all", limit_jobs=1, async_only=True).run(progress=broken)


def test_jobs_of_a_run_have_hosts_of_the_model(result: jobrota.ComparisonResult) -> None:
    assert all(column(result.jobs(), "host"))


def test_progress_interrupt_ends_run_in_order(sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    def progress(event: dict[str, Any]) -> None:
        if event["done"] == 1:
            raise KeyboardInterrupt("enough")

    runner = jobrota.ViyaComparisonRunner(
        sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=10, results_dir=tmp_path
    )
    calls: list[Callable[[], object]] = [
        lambda: runner.run(progress=progress),
        lambda: asyncio.run(runner.run_async(progress=progress)),
    ]
    for number, call in enumerate(calls, 1):
        with pytest.raises(KeyboardInterrupt, match="enough") as caught:
            call()
        results = sorted(tmp_path.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        assert len(results) == number
        assert str(results[-1]) in str(caught.value.__cause__)
        jobs = json.loads(results[-1].read_text())["sequential_execution"]["jobs"]
        assert 1 <= len(jobs) < 10


def test_canceled_run_cancels_jobs_and_writes_result(sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    runner = jobrota.ViyaComparisonRunner(
        sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=10, results_dir=tmp_path
    )

    async def work() -> None:
        submitted, loop = asyncio.Event(), asyncio.get_running_loop()
        run = asyncio.ensure_future(
            runner.run_async(progress=lambda event: loop.call_soon_threadsafe(submitted.set) and None)
        )
        await submitted.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(work())
    (result,) = tmp_path.glob("*.json")
    jobs = json.loads(result.read_text())["sequential_execution"]["jobs"]
    assert 1 <= len(jobs) < 10
    assert jobs[-1]["status"] in ("canceled", "completed")
