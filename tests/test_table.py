"""`jobrota.Table`: what returns it, what keeps it, and what it becomes."""

from __future__ import annotations

import ast
import asyncio
import copy
import inspect
import pickle
import sys
import types
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import arro3.core
import pandas
import polars
import pyarrow
import pytest
from arro3.core import Array, DataType, Field, Schema

import jobrota
from jobrota import Table
from reported_runs import recorded
from support import REPOSITORY, answers

MOMENT = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)


def made() -> Table:
    """A table with each type that the tables of the package have, with and without nulls."""
    moment = int(MOMENT.timestamp()) * 1_000_000 + MOMENT.microsecond
    columns: dict[str, Any] = {
        "text": Array(["a", None], DataType.string()),
        "count": Array([1, 2], DataType.int64()),
        "maybe": Array([1, None], DataType.int64()),
        "share": Array([0.5, None], DataType.float64()),
        "flag": Array([True, False], DataType.bool()),
        "known": Array([True, None], DataType.bool()),
        "at": Array([moment, None], DataType.int64()).cast(DataType.timestamp("us", tz="UTC")),
        "never": Array([None, None], DataType.string()),
    }
    # Without a schema, arro3 0.6.5 refuses nulls.
    return Table.from_pydict(columns, schema=Schema([Field(name, column.type) for name, column in columns.items()]))


def small() -> Table:
    return made().select(["text", "count"])


# One call for each method of the base class that returns a table, of the base class or of ours.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "from_arrays": lambda cls, table: cls.from_arrays(table.columns, names=table.column_names),
    "from_arrow": lambda cls, table: cls.from_arrow(table),
    "from_arrow_pycapsule": lambda cls, table: cls.from_arrow_pycapsule(table.__arrow_c_stream__()),
    "from_batches": lambda cls, table: cls.from_batches(table.to_batches()),
    "from_pydict": lambda cls, table: cls.from_pydict({name: table.column(name) for name in table.column_names}),
    "add_column": lambda _, table: table.add_column(0, "more", table.column(1)),
    "append_column": lambda _, table: table.append_column("more", table.column(1)),
    "combine_chunks": lambda _, table: table.combine_chunks(),
    "drop_columns": lambda _, table: table.drop_columns(["text"]),
    "rechunk": lambda _, table: table.rechunk(max_chunksize=1),
    "remove_column": lambda _, table: table.remove_column(0),
    "rename_columns": lambda _, table: table.rename_columns(["one", "two"]),
    "select": lambda _, table: table.select(["count"]),
    "set_column": lambda _, table: table.set_column(0, table.field("count"), table.column(1)),
    "slice": lambda _, table: table.slice(1),
    "with_schema": lambda _, table: table.with_schema(table.schema.with_metadata({"made": "here"})),
}
OTHERS: dict[str, Callable[[Table], Any]] = {
    "column": lambda table: table.column(0),
    "field": lambda table: table.field(0),
    "to_batches": lambda table: table.to_batches(),
    "to_reader": lambda table: table.to_reader(),
    "to_struct_array": lambda table: table.to_struct_array(),
}


def test_every_method_of_the_base_class_is_known() -> None:
    methods = {name for name in dir(arro3.core.Table) if not name.startswith("_")}
    methods = {name for name in methods if callable(getattr(arro3.core.Table, name))}
    # What arro3 0.6.5 does not have yet.
    assert methods | {"drop_columns"} == CALLS.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_method_that_returns_a_table_keeps_the_class(name: str) -> None:
    result = CALLS[name](Table, small())
    assert type(result) is Table
    # arro3 0.6.5 has no drop_columns, and its rename_columns fails.
    if hasattr(arro3.core.Table, "drop_columns") or name not in ("drop_columns", "rename_columns"):
        expected = CALLS[name](arro3.core.Table, arro3.core.Table.from_arrow(small()))
        assert type(expected) is arro3.core.Table
        assert expected == result
        assert expected.schema == result.schema
        assert expected.chunk_lengths == result.chunk_lengths


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_methods_return_no_table(name: str) -> None:
    assert not isinstance(OTHERS[name](small()), arro3.core.Table)


@pytest.mark.parametrize("name", CALLS)
def test_arguments_have_the_names_of_the_base_class(name: str) -> None:
    if not hasattr(arro3.core.Table, name):
        pytest.skip(f"this arro3 has no {name}")
    ours, theirs = (inspect.signature(getattr(each, name)) for each in (Table, arro3.core.Table))
    described = [[(one.name, one.default) for one in each.parameters.values()] for each in (ours, theirs)]
    assert described[0][: len(described[1])] == described[1]


def test_missing_columns_are_named() -> None:
    with pytest.raises(KeyError, match="no column 'nothing'; it has text, count"):
        small().drop_columns(["text", "nothing"])


def test_no_value_is_copied(ledger: jobrota.JobLedger) -> None:
    def address(table: Any) -> int:
        column = pyarrow.table(table).column("job_id").chunk(0)
        return int(column.buffers()[1].address)

    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    table = ledger.notifications()
    base = arro3.core.Table.from_arrow(table)
    assert address(Table(base)) == address(base) == address(table)
    assert address(table.select(["job_id"])) == address(Table.from_arrow(table)) == address(table)
    assert pyarrow.table(table.slice(0, 1)).column("job_id").to_pylist() == ["A"]


def test_the_core_takes_the_table_back(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    ledger.log_job_completion("b.sas", "B", "SUCCESS")
    assert ledger.acknowledge(ledger.pending_notifications().slice(1)) == 1
    assert [row.job_id for row in ledger.pending_notifications()] == ["A"]


def returning() -> set[str]:
    """The names in the stubs of the native module that return a table, now or when awaited."""
    tree = ast.parse((REPOSITORY / "python" / "jobrota" / "_native.pyi").read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        for function in [node] if isinstance(node, ast.FunctionDef) else getattr(node, "body", []):
            if isinstance(function, ast.FunctionDef) and function.returns is not None:
                names = {name.id for name in ast.walk(function.returns) if isinstance(name, ast.Name)}
                if "Table" in names:
                    found.add(function.name if function is node else f"{getattr(node, 'name', '')}.{function.name}")
    return found


def test_everything_that_returns_a_table_returns_ours(ledger: jobrota.JobLedger, tmp_path: Path) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    jobrota.AutosysUpdater(ledger, lambda *row: False, max_attempts=1).run()
    result = jobrota.ComparisonResult.from_table(recorded())
    result.append_to(tmp_path / "history")
    owners = {
        "JobLedger": ledger,
        "RoundRobinSelector": jobrota.RoundRobinSelector(["vm1"], cursor=tmp_path / "cursor", probe=answers),
        "ComparisonResult": result,
    }

    async def awaited(coroutine: Any) -> Any:
        return await coroutine

    assert len(returning()) > 20
    for name in sorted(returning()):
        owner, _, method = name.rpartition(".")
        call = getattr(owners[owner], method) if owner else getattr(jobrota, method)
        table = call() if owner else call(tmp_path / "history")
        if name.endswith("_async"):
            table = asyncio.run(awaited(table))
        assert type(table) is Table, name
        assert len(table.to_pylist()) == len(table), name


def test_rows_are_read_as_those_of_spark() -> None:
    first, second = made()
    assert first.text == first["text"] == first[0] == "a"
    assert first.at == MOMENT
    assert first.at.utcoffset().total_seconds() == 0
    assert second.asDict()["count"] == second["count"] == 2
    assert first[1:3] == (1, 1)
    with pytest.raises(KeyError, match="nothing"):
        first["nothing"]
    assert list(made().slice(0, 0)) == []


def test_rows_with_names_that_python_reserves() -> None:
    (row,) = Table.from_pydict({"class": Array([1], DataType.int64()), "a b": Array([2], DataType.int64())})
    assert tuple(row) == (1, 2)
    (shown,) = Table.from_pydict({"class": Array([1], DataType.int64())}).to_pylist()
    assert shown == {"class": 1}


def test_lists_are_those_of_pyarrow() -> None:
    assert made().to_pylist() == pyarrow.table(made()).to_pylist()
    # As pyarrow 8 takes them, which knows no PyCapsule.
    assert pyarrow.Table.from_pylist(small().to_pylist()).equals(pyarrow.table(small()))


def without_arrow(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """There is no pyarrow, or one that takes no PyCapsule."""
    old = types.ModuleType("pyarrow")
    vars(old)["Table"] = type("Table", (), {})
    monkeypatch.setitem(sys.modules, "pyarrow", None if how == "missing" else old)


@pytest.mark.parametrize("how", ["missing", "old"])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_pandas_gets_the_same_with_and_without_pyarrow(monkeypatch: pytest.MonkeyPatch, how: str, length: int) -> None:
    table = made().slice(0, length)
    with_arrow = table.to_pandas()
    assert isinstance(with_arrow, pandas.DataFrame)
    with monkeypatch.context() as patch:
        without_arrow(patch, how)
        by_lists = table.to_pandas()
    pandas.testing.assert_frame_equal(by_lists, with_arrow)


def test_times_in_pandas_are_utc_and_can_be_made_naive() -> None:
    times = made().to_pandas()["at"]
    assert times[0] == MOMENT
    assert str(times.dtype) == "datetime64[us, UTC]"
    assert times.dt.tz_localize(None)[0] == MOMENT.replace(tzinfo=None)


def test_polars() -> None:
    frame = made().to_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame.to_dicts() == made().to_pylist()
    assert frame.schema["at"] == polars.Datetime("us", "UTC")
    assert made().slice(0, 0).to_polars().schema == frame.schema


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(jobrota.MissingPackageError, match=f"pip install {package}, or use to_pylist"):
        getattr(made(), f"to_{package}")()


def test_spark_is_told_which_types_it_gets() -> None:
    class Session:
        def createDataFrame(self, rows: list[Any], schema: str) -> tuple[list[Any], str]:  # noqa: N802 - Spark's name
            return rows, schema

    rows, schema = made().rename_columns(["a`b", *made().column_names[1:]]).to_spark(Session())
    assert schema == (
        "`a``b` STRING, `count` BIGINT, `maybe` BIGINT, `share` DOUBLE, `flag` BOOLEAN, `known` BOOLEAN, "
        "`at` TIMESTAMP, `never` STRING"
    )
    assert rows == [tuple(row) for row in made()]
    odd = Table.from_pydict({"odd": Array([b"x"], DataType.binary())})
    with pytest.raises(jobrota.UnsupportedError, match=r"column odd has the type .*Binary.* drop_columns\(\['odd'\]\)"):
        odd.to_spark(Session())


def test_the_html_has_the_first_rows() -> None:
    numbers = Table.from_pydict({"n": Array(list(range(1000, 1100)), DataType.int64())})
    html = numbers._repr_html_()
    assert "first rows" in html
    assert ">1,019<" in html
    assert ">1,020<" not in html
    assert ">100<" in html, "the number of all rows"
    assert "all rows" in numbers.slice(0, 20)._repr_html_()
    assert ">n<" in numbers.slice(0, 0)._repr_html_(), "an empty table shows its columns"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_a_copy_is_one_of_ours_where_arro3_can_copy(again: Callable[[Any], Any]) -> None:
    try:
        again(arro3.core.Table.from_arrow(small()))
    except TypeError:
        with pytest.raises(TypeError):
            again(small())
    else:
        assert type(again(small())) is Table


def test_a_schema_is_kept() -> None:
    schema = Schema([made().field("at")], metadata={"of": "jobrota"})
    table = made().select(["at"]).with_schema(schema)
    assert table.schema.metadata_str == {"of": "jobrota"}
    assert Table.from_arrow(table).schema == schema
