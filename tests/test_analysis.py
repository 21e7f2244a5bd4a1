"""The analysis of recorded runs, from Python."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table

import jobrota
from support import column

RECORDED = Path(__file__).parents[1] / "examples" / "data" / "viya_recorded_run.csv"


def table(rows: list[dict[str, Any]]) -> Table:
    """Rows as Arrow: texts and numbers as they come."""
    texts = {"arm", "job", "context", "queue", "host", "state"}
    columns: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] if row[name] != "" else None for row in rows]
        if name in texts:
            columns[name] = Array(values, DataType.utf8())
        else:
            columns[name] = Array([None if value is None else float(value) for value in values], DataType.float64())
    return Table.from_pydict(columns)


@pytest.fixture(scope="module")
def recorded() -> jobrota.ComparisonResult:
    with RECORDED.open(newline="") as file:
        return jobrota.ComparisonResult.from_table(table(list(csv.DictReader(file))))


def test_the_recorded_run_raises_its_warnings_by_itself(recorded: jobrota.ComparisonResult) -> None:
    codes = {warning.code for warning in recorded.warnings}
    assert {"single_repeat", "shared_host", "warm_host", "fixed_arm_scaled", "packed_host"} <= codes
    assert not codes & {"parallelism_confounded", "missing_correlation", "wrong_context", "wrong_queue"}
    assert recorded.path is None
    assert recorded.failed_jobs == 0


def test_its_figures_are_those_that_were_counted_by_hand(recorded: jobrota.ComparisonResult) -> None:
    arms = recorded.arms()
    assert column(arms, "arm") == ["sequential", "async_regular", "async_autoscaling"]
    assert [round(value) for value in column(arms, "total_duration_s")] == [2814, 901, 608]
    assert [round(value) for value in column(arms, "running_sum_s")] == [2093, 10844, 3688]
    assert [round(value) for value in column(arms, "cpu_sum_s")] == [1716, 2924, 2645]
    hosts = recorded.hosts()
    peaks = list(zip(column(hosts, "arm"), column(hosts, "host"), column(hosts, "peak_concurrency"), strict=True))
    assert ("async_regular", "node-1", 14) in peaks
    assert ("async_regular", "node-2", 4) in peaks
    phases = recorded.phases()
    rows = dict(
        zip(zip(column(phases, "arm"), column(phases, "phase"), strict=True), column(phases, "max_s"), strict=True)
    )
    assert rows["async_regular", "pending"] == 662
    assert rows["async_autoscaling", "starting"] == 98
    jobs = recorded.jobs()
    with RECORDED.open(newline="") as file:
        header = next(csv.reader(file))
    assert jobs.column_names[: len(header)] == header


def rounds(seed: int, count: int, effect: float, noise: float) -> Table:
    """Two arms whose jobs differ by `effect`, in rounds that scatter."""
    draw = random.Random(seed)
    rows = []
    now = 0.0
    for number in range(1, count + 1):
        for arm, factor in (("a", 1.0), ("b", effect)):
            length = 600 * factor * draw.lognormvariate(0, noise)
            for job in range(3):
                end = now + length * (job + 1) / 3
                rows.append({"arm": arm, "job": f"j{job}", "jes_created_s": now, "jes_end_s": end, "round": number})
            now += length + 1
    return table(rows)


def claimed(seed: int, count: int, effect: float, noise: float) -> bool:
    result = jobrota.ComparisonResult.from_table(rounds(seed, count, effect, noise))
    (comparison,) = result.to_dict()["analysis"]["comparisons"]
    found: bool = comparison["claimed"]
    return found


def test_false_claims_at_most_5_percent() -> None:
    print("seeds 0 to 199")
    assert sum(claimed(seed, 5 + seed % 6, 1.0, 0.05) for seed in range(200)) <= 10


def test_20_percent_is_found_in_80_percent() -> None:
    print("seeds 0 to 199")
    assert sum(claimed(seed, 6, 0.8, 0.05) for seed in range(200)) >= 160
    assert sum(claimed(seed, 6, 1.2, 0.05) for seed in range(200)) >= 160
    assert not any(claimed(seed, 4, 0.5, 0.01) for seed in range(20))


def test_a_result_is_saved_and_read_back(recorded: jobrota.ComparisonResult, tmp_path: Path) -> None:
    path = recorded.save(tmp_path / "result.json")
    again = jobrota.ComparisonResult.load(path)
    assert again.path == path
    assert again.to_dict() == recorded.to_dict()
    assert "No verdict: 1 round" in again._repr_html_()
    for text in ("nonsense", "{}", "[1]"):
        path.write_text(text)
        with pytest.raises(jobrota.InvalidInputError, match="not the result of a comparison"):
            jobrota.ComparisonResult.load(path)


def test_what_is_no_run_is_refused() -> None:
    with pytest.raises(jobrota.InvalidInputError, match="no column jes_end_s"):
        jobrota.ComparisonResult.from_table(table([{"arm": "a", "job": "j", "jes_created_s": 1}]))
    with pytest.raises(jobrota.InvalidInputError, match="Arrow"):
        jobrota.ComparisonResult.from_table([1, 2])  # type: ignore[arg-type]


def row(arm: str, job: str, start: float, length: float, **more: Any) -> dict[str, Any]:
    """A job on a host of its arm's, with a pod start of 6 s."""
    return {
        "arm": arm, "job": job, "context": arm, "host": f"host-{arm}",
        "jes_created_s": start, "jes_end_s": start + length,
        "wlo_submit_s": start, "wlo_start_s": start, "wlo_end_s": start + length, "pending_s": 0.0, "starting_s": 6.0,
        "running_s": length - 6.0, "max_cpu_s": (length - 6.0) / 1.2, "round": 1, **more,
    }  # fmt: skip


def codes(rows: list[dict[str, Any]]) -> set[str]:
    return {warning.code for warning in jobrota.ComparisonResult.from_table(table(rows)).warnings}


def five_rounds(jobs: int = 4, **more: Any) -> list[dict[str, Any]]:
    """Two arms, each on a host of its own, with nothing to be careful with."""
    return [
        row(
            arm,
            f"j{job}",
            1000.0 * number + 100 * job + (500 if arm == "b" else 0),
            60.0 + number,
            round=number,
            **more,
        )
        for number in range(1, 6)
        for arm in "ab"
        for job in range(jobs)
    ]


def test_clean_run_has_no_warning() -> None:
    assert codes(five_rounds()) == set()


def test_arms_that_ran_different_jobs_are_told() -> None:
    rows = [each for each in five_rounds() if (each["arm"], each["job"]) != ("b", "j3")]
    result = jobrota.ComparisonResult.from_table(table(rows))
    assert {warning.code for warning in result.warnings} == {"jobs_differ"}
    assert result.to_dict()["analysis"]["verdict"]["cautions"] == ["jobs_differ"]


def test_incomplete_round_is_left_out() -> None:
    rows = [each for each in five_rounds() if (each["arm"], each["job"], each["round"]) != ("a", "j0", 2)]
    result = jobrota.ComparisonResult.from_table(table(rows))
    assert [arm["rounds"] for arm in result.to_dict()["analysis"]["arms"]] == [4, 5]


@pytest.mark.parametrize(
    "gone",
    [
        ("wlo_id", "wlo_submit_s", "wlo_start_s", "host"),
        ("host",),
        ("wlo_start_s",),
        ("wlo_end_s", "running_s"),
    ],
)
def test_an_account_that_is_partly_missing_is_told(gone: tuple[str, ...]) -> None:
    rows = five_rounds()
    rows[3] |= dict.fromkeys(gone, "")
    assert "missing_correlation" in codes(rows)


def test_job_that_never_started_is_correlated() -> None:
    never = dict.fromkeys(("host", "wlo_start_s", "wlo_end_s", "starting_s", "running_s", "max_cpu_s"), "")
    rows = five_rounds()
    rows[3] |= never | {"state": "canceled", "wlo_id": 7}
    for each in rows:
        each.setdefault("state", "COMPLETED")
        each.setdefault("wlo_id", 1)
    assert "missing_correlation" not in codes(rows)


def test_hosts_that_are_packed_in_every_arm_are_told() -> None:
    at_once = [each | {"jes_created_s": 0.0, "wlo_submit_s": 0.0, "wlo_start_s": 0.0, "wlo_end_s": each["jes_end_s"]}
               for each in five_rounds() if each["round"] == 1]  # fmt: skip
    assert "packed_host" not in codes(at_once)
    assert "packed_host" in codes([each | {"max_cpu_s": each["running_s"] / 5} for each in at_once])
    # A program that keeps several cores busy makes no other host a packed one.
    assert "packed_host" not in codes(
        [each | {"max_cpu_s": each["running_s"] * (2.5 if each["arm"] == "a" else 1.0)} for each in at_once]
    )


def test_many_cold_starts_are_as_cold_as_few() -> None:
    rows = [row("a", f"j{job}", 0.0, 100.0, host=f"new-{job}", starting_s=80.0, running_s=20.0) for job in range(8)]
    rows += [row("a", f"k{job}", 200.0 + job, 60.0, host=f"new-{job}") for job in range(2)]
    (arm,) = jobrota.ComparisonResult.from_table(table(rows)).to_dict()["analysis"]["arms"]
    assert (arm["cold_starts"], arm["starting_cold_s"]["p50"], arm["starting_warm_s"]["p50"]) == (8, 80.0, 6.0)


def test_unknown_contexts_differ_by_queue() -> None:
    rows = [each | {"context": "", "queue": f"q{each['arm']}"} for each in five_rounds()]
    for each in rows:
        # b has all its jobs at once.
        if each["arm"] == "b":
            each |= {"jes_created_s": 1000.0 * each["round"] + 500, "jes_end_s": 1000.0 * each["round"] + 560}
            each |= dict.fromkeys(("wlo_submit_s", "wlo_start_s"), each["jes_created_s"]) | {
                "wlo_end_s": each["jes_end_s"]
            }
    assert "parallelism_confounded" in codes(rows)


def test_rounds_with_clocks_of_their_own_add_nothing_up() -> None:
    rows = [row("a", f"j{job}", 0.0, 60.0, round=number) for number in (1, 2, 3) for job in range(2)]
    (arm,) = jobrota.ComparisonResult.from_table(table(rows)).to_dict()["analysis"]["arms"]
    assert arm["peak_concurrency"] == 2
    assert {moment["jobs"] for moment in arm["concurrency"]} == {0, 2}
    assert [moment["round"] for moment in arm["concurrency"]] == [1, 1, 2, 2, 3, 3]


def test_a_price_is_what_host_seconds_cost() -> None:
    result = jobrota.ComparisonResult.from_table(table(five_rounds()), host_price=3.6)
    (arm, _) = result.to_dict()["analysis"]["arms"]
    assert arm["cost"] == pytest.approx(arm["host_seconds"] * 0.001)
    assert arm["cost_per_job"] == pytest.approx(arm["cost"] / 20)
    with pytest.raises(jobrota.InvalidInputError, match="host_price"):
        jobrota.ComparisonResult.from_table(table(five_rounds()), host_price=-1)


def test_wrong_types_are_refused_and_nulls_taken() -> None:
    import pyarrow

    good = {"arm": ["a", "b"], "job": ["j", "j"], "jes_created_s": [0.0, 10.0], "jes_end_s": [5.0, 12.0]}

    def read(**columns: Any) -> jobrota.ComparisonResult:
        return jobrota.ComparisonResult.from_table(pyarrow.table(good | columns))

    for columns, said in [
        ({"jes_end_s": pyarrow.array([5, 12], pyarrow.timestamp("us"))}, "jes_end_s"),
        ({"pending_s": pyarrow.array([5, 12], pyarrow.duration("s"))}, "pending_s"),
        ({"arm": pyarrow.array([["a"], ["b"]])}, "arm"),
        ({"round": [1.5, 1.0]}, "round is not a whole number"),
        ({"pending_s": ["soon", "1"]}, "pending_s"),
        ({"wlo_start_s": [5.0, 5.0], "wlo_end_s": [4.0, 6.0]}, "left its host before"),
        ({"arm": ["a", "a"], "jes_created_s": [0.0, 0.0], "sequence": [1, 1]}, "repeats row 1"),
    ]:
        with pytest.raises(jobrota.InvalidInputError, match=said):
            read(**columns)
    assert read(wlo_id=[float("nan"), 3.0], round=[1.0, float("nan")], pending_s=["", " 2 "]).failed_jobs == 0
    categories = pyarrow.array(["a", "b"]).dictionary_encode()
    assert read(arm=categories, state=["TIMED OUT", "Completed"]).failed_jobs == 1


def test_results_of_the_first_client_keep_what_they_have(tmp_path: Path) -> None:
    entry = {
        "id": 7, "request": {"name": "a-x", "queue": "default", "user": "u"},
        "processingInfo": {
            "submitTime": "2025-09-10T04:46:22Z", "startTime": "2025-09-10T04:46:25Z",
            "endTime": "2025-09-10T04:47:20Z",
            "totalTimePending": 3, "totalTimeStarting": 6, "totalTimeRunning": 49, "executionHost": "h1",
            "limitValues": [{"name": "maxCpuTime", "value": 40.0}],
        },
    }  # fmt: skip
    job = {
        "name": "a", "status": "completed", "duration": 66.2,
        "job_metrics": {"submission_time": "2025-09-10T04:46:22.000Z", "completion_time": "2025-09-10T04:47:22.000Z"},
        "metrics": {"orchestrator_data": entry},
    }  # fmt: skip
    old = {
        "metadata": {"execution_timestamp": "2025-09-10T04:46:00Z", "base_url": "https://viya.example.com"},
        "sequential_execution": {"context_name": "A", "jobs": [job]},
        "async_execution": {"context_name": "B", "execution_mode": "all", "max_concurrent": 5, "jobs": [job, job]},
    }
    path = tmp_path / "old.json"
    path.write_text("\ufeff" + json.dumps(old))
    result = jobrota.ComparisonResult.load(path)
    jobs = result.jobs()
    assert column(jobs, "running_s") == [49.0] * 3
    assert column(jobs, "max_cpu_s") == [40.0] * 3
    assert column(jobs, "host") == ["h1"] * 3
    assert column(result.arms(), "concurrent") == [1, 2]
    values = result.to_dict()
    assert values["sequential_execution"] == old["sequential_execution"]
    assert len(values["arms"]) == 2
    # Kept under its own time, once.
    assert (result.append_to(tmp_path / "tables"), result.append_to(tmp_path / "tables")) == (3, 0)
    (moment, _) = column(jobrota.comparison_history(tmp_path / "tables"), "run_at")
    assert moment.isoformat() == "2025-09-10T04:46:00+00:00"
