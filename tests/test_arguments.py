"""Invalid arguments of the ledger: an InvalidInputError names them, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table

import jobrota
from support import column

HALF = "a\ud800"  # half of a surrogate pair, as os.listdir gives for names that are not UTF-8


class Strange(tzinfo):
    """A timezone that does not work."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        raise RuntimeError("no offset today")

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> str:
        return "strange"


def awaited(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    async def work() -> Any:
        return await call(*arguments, **options)

    return asyncio.run(work())


@pytest.mark.parametrize("wrong", [None, 7, b"bytes", ["A"], HALF], ids=repr)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_values_that_are_no_text(ledger: jobrota.JobLedger, wrong: Any, at: int) -> None:
    values: list[Any] = ["a.sas", "A", "SUCCESS"]
    values[at] = wrong
    name = ("file_name", "job_id", "status")[at]
    for call in (ledger.log_job_execution, ledger.log_job_completion):
        with pytest.raises(jobrota.InvalidInputError, match=name) as caught:
            call(*values)
        assert not caught.value.retryable
    for twin in (ledger.log_job_execution_async, ledger.log_job_completion_async):
        with pytest.raises(jobrota.InvalidInputError, match=name):
            awaited(twin, *values)
    if at < 2:
        for short in (ledger.track, ledger.update_autosys_flag):
            with pytest.raises(jobrota.InvalidInputError, match=name):
                short(*values[:2])
    assert not Path(ledger.root).exists()


def test_the_notebook_functions_say_the_same(ledger: jobrota.JobLedger) -> None:
    jobrota.configure(ledger=ledger)
    nothing: Any = None
    for call in (jobrota.log_job_execution, jobrota.log_job_completion):
        with pytest.raises(jobrota.InvalidInputError, match="file_name"):
            call(nothing, "A", "SUCCESS")


@pytest.mark.parametrize("limit", [0, -1, 2**70, -(2**70), 1.5, "1", True, float("nan")], ids=repr)
def test_limits_are_whole_numbers_from_1(ledger: jobrota.JobLedger, limit: Any) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    for read in (ledger.fetch_unprocessed_updates, ledger.pending_notifications):
        with pytest.raises(jobrota.InvalidInputError, match="limit"):
            read(limit=limit)
    for twin in (ledger.fetch_unprocessed_updates_async, ledger.pending_notifications_async):
        with pytest.raises(jobrota.InvalidInputError, match="limit"):
            awaited(twin, limit=limit)
    assert ledger.pending_notifications(limit=2**40).num_rows == 1


@pytest.mark.parametrize("wrong", [7, b"A", HALF], ids=repr)
@pytest.mark.parametrize("name", ["job_id", "status", "flag"])
def test_filters_are_text(ledger: jobrota.JobLedger, name: str, wrong: Any) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    for read in (ledger.executions, ledger.notifications):
        with pytest.raises(jobrota.InvalidInputError, match=name):
            read(**{name: wrong})
    odd: dict[str, Any] = {name: "'; no such\0%"}
    assert ledger.notifications(**odd).num_rows == 0


@pytest.mark.parametrize(
    "moment",
    [
        "2025-09-15",
        1_757_900_000,
        datetime(2025, 9, 15),
        datetime(2025, 9, 15, tzinfo=Strange()),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-2))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=2))),
    ],
    ids=["text", "number", "naive", "strange", "latest", "earliest"],
)
def test_moments_that_are_none(ledger: jobrota.JobLedger, moment: Any) -> None:
    with pytest.raises(jobrota.InvalidInputError, match="execution_timestamp"):
        ledger.log_job_execution("a.sas", "A", "SUCCESS", execution_timestamp=moment)
    with pytest.raises(jobrota.InvalidInputError, match="since"):
        ledger.executions(since=moment)


def test_options_of_the_ledger_itself(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"root": None}, "path"),
        ({"root": 7}, "path"),
        ({"root": b"bytes"}, "path"),
        ({"root": HALF}, "path"),
        ({"durability": None}, "durability"),
        ({"durability": "none"}, "durability"),
        ({"commit_timeout": "soon"}, "commit_timeout"),
        ({"commit_timeout": -1}, "commit_timeout"),
        ({"commit_timeout": float("nan")}, "commit_timeout"),
        ({"storage_options": "a=b"}, "storage_options"),
        ({"storage_options": {"a": 1}}, "storage option"),
        ({"storage_options": {"a": None}}, "storage_options"),
        ({"storage_options": {1: "a"}}, "storage_options"),
    ]
    for options, says in cases:
        with pytest.raises(jobrota.InvalidInputError, match=says):
            jobrota.JobLedger(**({"root": tmp_path / "ledger"} | options))


@pytest.mark.parametrize("table", [None, 7, "both"])
def test_tables_are_known_by_name(ledger: jobrota.JobLedger, table: Any) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    with pytest.raises(jobrota.InvalidInputError, match="job_notifications"):
        ledger.acknowledge(ledger.pending_notifications(), table=table)
    with pytest.raises(jobrota.InvalidInputError, match="job_notifications"):
        awaited(ledger.acknowledge_async, ledger.pending_notifications(), table=table)


class Broken:
    """Arrow data whose producer fails."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        raise RuntimeError("the producer failed")


def test_arrow_data_that_is_none(ledger: jobrota.JobLedger) -> None:
    text = Array(["a"], DataType.string())
    twice = Table.from_arrays([text, text, text, text], names=["file_name", "job_id", "status", "status"])
    wrong: list[Any] = [twice, Broken(), None, 7, "text", {"file_name": ["a"]}, [1, 2]]
    for rows in wrong:
        for call in (ledger.log_executions, ledger.log_notifications, ledger.acknowledge):
            with pytest.raises(jobrota.InvalidInputError):
                call(rows)
    assert not Path(ledger.root).exists()


def test_flags_of_any_kind_up_to_64_bytes(ledger: jobrota.JobLedger) -> None:
    def table(flag: str) -> Table:
        values = {"file_name": "a", "job_id": "A", "status": "S", "autosys_update_flag": flag}
        return Table.from_pydict({name: Array([value], DataType.string()) for name, value in values.items()})

    flags = ["NO", "a/b", "../x", "%", "100%25", "'\"`", "\t\n\x00\x7f", "ü🚀", " ", "%" * 64]
    for flag in flags:
        assert ledger.log_notifications(table(flag)) == 1
    with pytest.raises(jobrota.InvalidInputError, match="64"):
        ledger.log_notifications(table("x" * 300))
    for flag in flags:
        assert column(ledger.notifications(flag=flag), "autosys_update_flag") == [flag]
    assert ledger.acknowledge(ledger.pending_notifications()) == 1
    assert ledger.summary().notifications["other_flags"] == len(flags) - 1
