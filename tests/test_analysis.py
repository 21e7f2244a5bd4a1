"""The analysis of recorded runs, from Python."""

from __future__ import annotations

import csv
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


def test_of_200_comparisons_of_equals_one_in_twenty_at_most_claims_a_difference() -> None:
    print("seeds 0 to 199")
    assert sum(claimed(seed, 5 + seed % 6, 1.0, 0.05) for seed in range(200)) <= 10


def test_a_fifth_is_found_in_four_of_five_at_least() -> None:
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
