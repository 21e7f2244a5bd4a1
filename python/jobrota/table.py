"""The Arrow table that methods return: an `arro3.core.Table` that also becomes rows, and tables of other packages.

Rows need no other package. pandas, polars and Spark are imported when a table becomes theirs.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import arro3.core
from arro3.core import DataType, Field, Schema

from jobrota.errors import MissingPackageError, UnsupportedError

if TYPE_CHECKING:
    from arro3.core.types import ArrayInput, ArrowArrayExportable, ArrowSchemaExportable, ArrowStreamExportable

__all__ = ["NamedRow", "Table"]

_SHOWN_ROWS = 20
_SPARK_TYPES = (
    (DataType.is_string, "STRING"),
    (DataType.is_large_string, "STRING"),
    (DataType.is_string_view, "STRING"),
    (DataType.is_boolean, "BOOLEAN"),
    (DataType.is_int64, "BIGINT"),
    (DataType.is_int32, "INT"),
    (DataType.is_float64, "DOUBLE"),
    (DataType.is_date32, "DATE"),
)


class NamedRow:
    """The ways of Spark to read a row, for a named tuple."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        """Returns a field by its name or its position."""
        return self.asDict()[key] if isinstance(key, str) else super().__getitem__(key)  # type: ignore[misc]

    def asDict(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Returns the row as a dict. Spark's rows have a method of the same name."""
        return self._asdict()  # type: ignore[attr-defined, no-any-return]


class Table(arro3.core.Table):
    """An Arrow table.

    Iteration yields its rows: `row.job_id`, `row["job_id"]` or `row[1]`. Timestamps are datetimes in UTC.

    Each package that takes Arrow data takes the table without a copy: `pyarrow.table(table)`, from pyarrow 14 on.
    An older pyarrow takes lists: `pyarrow.Table.from_pylist(table.to_pylist())`.

    Example:
        >>> from arro3.core import Array, DataType
        >>> table = Table.from_pydict({"vm": Array(["vm1", "vm2"], DataType.string())})
        >>> table.to_pylist()
        [{'vm': 'vm1'}, {'vm': 'vm2'}]
        >>> [row.vm for row in table.slice(1)]
        ['vm2']
    """

    def __iter__(self) -> Iterator[Any]:
        """Yields the rows, as named tuples that can also be read as Spark's rows are."""
        make: Any = namedtuple
        row: Any = type("Row", (NamedRow, make("Row", self.column_names, rename=True)), {"__slots__": ()})
        return map(row._make, zip(*(column.to_pylist() for column in self.columns), strict=True))

    def _repr_html_(self) -> str:
        """Returns the first rows as HTML, for a notebook."""
        from jobrota.display import repr_html

        first = self.slice(0, min(_SHOWN_ROWS, self.num_rows)).to_pylist()
        title = "first rows" if len(first) < self.num_rows else "all rows"
        shown = {title: first} if first else {"columns": ", ".join(self.column_names)}
        return repr_html("table", {"rows": self.num_rows} | shown)

    def to_pylist(self) -> list[dict[str, Any]]:
        """Returns the rows as dicts."""
        return [dict(zip(self.column_names, row, strict=True)) for row in self]

    def to_pandas(self) -> Any:
        """Returns a `pandas.DataFrame`. With pyarrow 14 or later, no value becomes a Python object on the way.

        Raises:
            MissingPackageError: pandas is missing.
        """
        pandas = _package("pandas")
        try:
            import pyarrow

            if hasattr(pyarrow.Table, "__arrow_c_stream__"):
                return pyarrow.table(self).to_pandas()
        except ImportError:
            pass
        # A column without values has no type that pandas could find.
        texts = pandas.Series([""]).dtype
        unit = "us" if hasattr(pandas.Timestamp, "as_unit") else "ns"
        return pandas.DataFrame(
            {
                name: pandas.Series(values := column.to_pylist(), dtype=_pandas_type(column.type, values, unit, texts))
                for name, column in zip(self.column_names, self.columns, strict=True)
            }
        )

    def to_polars(self) -> Any:
        """Returns a `polars.DataFrame`, without a copy.

        Raises:
            MissingPackageError: polars is missing.
        """
        return _package("polars").DataFrame(self)

    def to_spark(self, spark: Any) -> Any:
        """Returns a DataFrame of a Spark session, with Spark Connect too.

        `spark.createDataFrame(table)` does the same for a table in which each column has a value.

        Args:
            spark: The session.

        Raises:
            UnsupportedError: A column has a type that the tables of this package do not have.
        """
        # The types are given, because Spark can find none in a column without values.
        schema = ", ".join(_spark_column(self.field(name)) for name in self.column_names)
        return spark.createDataFrame([tuple(row) for row in self], schema)

    # The methods of the base class that return a table. They would return one of the base class.

    @classmethod
    def from_arrays(
        cls,
        arrays: Sequence[ArrayInput | ArrowStreamExportable],
        *,
        names: Sequence[str] | None = None,
        schema: ArrowSchemaExportable | None = None,
        metadata: dict[str, str] | dict[bytes, bytes] | None = None,
    ) -> Table:
        """Makes a table of arrays."""
        given: Any = {"names": names, "schema": schema, "metadata": metadata}
        return cls(super().from_arrays(arrays, **given))

    @classmethod
    def from_arrow(cls, input: ArrowArrayExportable | ArrowStreamExportable) -> Table:  # noqa: A002 - arro3's name
        """Makes a table of any Arrow data, without a copy."""
        return cls(super().from_arrow(input))

    @classmethod
    def from_arrow_pycapsule(cls, capsule: object) -> Table:
        """Makes a table of the PyCapsule of an Arrow stream, without a copy."""
        return cls(_Capsule(capsule))

    @classmethod
    def from_batches(
        cls, batches: Sequence[ArrowArrayExportable], *, schema: ArrowSchemaExportable | None = None
    ) -> Table:
        """Makes a table of batches."""
        return cls(super().from_batches(batches, schema=schema))

    @classmethod
    def from_pydict(
        cls,
        mapping: dict[str, ArrayInput | ArrowStreamExportable],
        *,
        schema: ArrowSchemaExportable | None = None,
        metadata: dict[str, str] | dict[bytes, bytes] | None = None,
    ) -> Table:
        """Makes a table of arrays by the name of their column."""
        given: Any = {"schema": schema, "metadata": metadata}
        return cls(super().from_pydict(mapping, **given))

    def add_column(
        self, i: int, field: str | ArrowSchemaExportable, column: ArrowStreamExportable | ArrowArrayExportable
    ) -> Table:
        """Returns the table with a column at the position `i`."""
        return Table(super().add_column(i, field, column))

    def append_column(
        self, field: str | ArrowSchemaExportable, column: ArrowStreamExportable | ArrowArrayExportable
    ) -> Table:
        """Returns the table with a column at the end."""
        return Table(super().append_column(field, column))

    def combine_chunks(self) -> Table:
        """Returns the table with one chunk."""
        return Table(super().combine_chunks())

    def drop_columns(self, columns: Sequence[str]) -> Table:
        """Returns the table without some columns. arro3 0.6.5 has no such method.

        Raises:
            KeyError: The table has no such column.
        """
        if missing := [name for name in columns if name not in self.column_names]:
            raise KeyError(f"the table has no column {missing[0]!r}; it has {', '.join(self.column_names)}")
        return self.select([name for name in self.column_names if name not in columns])

    def rechunk(self, *, max_chunksize: int | None = None, chunk_lengths: Sequence[int] | None = None) -> Table:
        """Returns the table with chunks of other lengths. arro3 0.6.5 knows `max_chunksize` only."""
        given: Any = {} if chunk_lengths is None else {"chunk_lengths": chunk_lengths}
        return Table(super().rechunk(max_chunksize=max_chunksize, **given))

    def remove_column(self, i: int) -> Table:
        """Returns the table without the column at the position `i`."""
        return Table(super().remove_column(i))

    def rename_columns(self, names: Sequence[str]) -> Table:
        """Returns the table with other names of all columns. That of arro3 0.6.5 fails."""
        fields = [self.field(at).with_name(name) for at, name in zip(range(self.num_columns), names, strict=True)]
        return Table.from_arrays(self.columns, schema=Schema(fields, metadata=self.schema.metadata))

    def select(self, columns: Sequence[int] | Sequence[str]) -> Table:
        """Returns some of the columns, by name or position."""
        return Table(super().select(columns))

    def set_column(
        self, i: int, field: str | ArrowSchemaExportable, column: ArrowStreamExportable | ArrowArrayExportable
    ) -> Table:
        """Returns the table with another column at the position `i`."""
        return Table(super().set_column(i, field, column))

    def slice(self, offset: int = 0, length: int | None = None) -> Table:
        """Returns some of the rows, without a copy."""
        return Table(super().slice(offset, length))

    def with_schema(self, schema: ArrowSchemaExportable) -> Table:
        """Returns the same values with another schema, such as other metadata."""
        return Table(super().with_schema(schema))


class _Capsule:
    """Arrow data of which there is only the PyCapsule."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._capsule


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(f"{name} is not installed: run pip install {name}, or use to_pylist()") from error


def _pandas_type(kind: DataType, values: Any, unit: str, texts: Any) -> Any:
    """Returns the type that pyarrow would give the column."""
    has_nulls = None in values
    if DataType.is_timestamp(kind):
        return f"datetime64[{unit}, {kind.tz}]" if kind.tz else f"datetime64[{unit}]"
    if DataType.is_string(kind):
        return texts
    if DataType.is_boolean(kind):
        return object if has_nulls else bool
    if DataType.is_integer(kind):
        return "float64" if has_nulls else "int64"
    return "float64" if DataType.is_floating(kind) else object


def _spark_column(field: Field) -> str:
    """Returns name and type of a column for Spark."""
    kind, name = field.type, field.name.replace("`", "``")
    if DataType.is_timestamp(kind):
        return f"`{name}` {'TIMESTAMP' if kind.tz else 'TIMESTAMP_NTZ'}"
    for is_of, spark_type in _SPARK_TYPES:
        if is_of(kind):
            return f"`{name}` {spark_type}"
    raise UnsupportedError(
        f"the column {field.name} has the type {str(kind).strip()}, which is not converted for Spark: leave it out "
        f"with drop_columns([{field.name!r}]), or use spark.createDataFrame(table.to_pandas())"
    )
