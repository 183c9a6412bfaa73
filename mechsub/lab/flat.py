"""Rows as files that other programs read: CSV, and parquet where pyarrow is installed.

A list is JSON in CSV, and a list in parquet. A dict is JSON in both. A column of values of several kinds is text.
"""

import csv
import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def problem() -> str | None:
    """The package that parquet lacks, and the one command that installs it."""
    if importlib.util.find_spec("pyarrow") is None:
        return "parquet needs pyarrow; run: python -m pip install 'mechsub[export]'"
    return None


def columns(rows: Sequence[Mapping]) -> dict[str, list]:
    """Column -> a value for every row; None where a row has no value."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def kind(values: Sequence) -> str:
    """The type of a column, in words."""
    words = {bool: "true or false", int: "whole number", float: "number", str: "text", list: "list", dict: "dict"}
    found = {words.get(type(value), "text") for value in values if value is not None}
    if found == {"whole number", "number"}:
        return "number"
    return " or ".join(sorted(found)) or "empty"


def csv_bytes(table: Mapping[str, Sequence]) -> bytes:
    """CSV with a header. Numbers are written so that a reader gets the same numbers; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*([_plain(value) for value in values] for values in table.values()), strict=True))
    return text.getvalue().encode()


def parquet_bytes(table: Mapping[str, Sequence]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({name: _array(values) for name, values in table.items()}), sink)
    return sink.getvalue().to_pybytes()


def _array(values: Sequence) -> "pa.Array":
    import pyarrow as pa

    if not any(isinstance(value, Mapping) for value in values):
        try:
            return pa.array(values)
        except (ValueError, TypeError, OverflowError):  # of several kinds, or beyond 64 bits
            pass
    return pa.array([_text(value) for value in values], pa.string())


def _plain(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list | tuple) else value


def _text(value) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
