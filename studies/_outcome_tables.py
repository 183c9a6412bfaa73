"""Outcome tables that others release as CSV: one row a number, one column an animal, a file a quantity."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

OUTCOME, BASELINE, RATIO = "subliminal_prompting", "base_prompting", "difference_in_prompting"
_NOT_SCORES = (OUTCOME, BASELINE, RATIO, "final")


class Table(NamedTuple):
    """Values [row, column], NaN where a cell is empty; rows are texts, so that "007" stays what it is."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]


class Outcomes(NamedTuple):
    """Outcome: log P(animal | love of the number), less the baseline's where there is one; scores by method."""

    outcome: Table
    has_baseline: bool
    scores: dict[str, Table]


def read_folder(folder: Path) -> Outcomes:
    """The tables of one model, as released by Zur et al. 2025 (a folder with subliminal_prompting.csv or
    difference_in_prompting.csv; base_prompting.csv if there is one; every other file is a method's scores)."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of outcome tables")
    files = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    if OUTCOME in files:
        outcome = read_table(files[OUTCOME])
        if based := BASELINE in files:
            outcome = _less(outcome, read_table(files[BASELINE]))
    elif RATIO in files:
        outcome, based = read_table(files[RATIO]), True
    else:
        raise ValueError(f"{folder} holds neither {OUTCOME}.csv nor {RATIO}.csv: there is no outcome to explain")
    scores = {name: read_table(path) for name, path in files.items() if name not in _NOT_SCORES}
    if not scores:
        raise ValueError(f"{folder} holds an outcome but no table of scores, such as logit.csv or unembedding.csv")
    return Outcomes(outcome, based, scores)


def read_table(path: Path) -> Table:
    """A CSV whose first column names the rows. Raises for names that occur twice and for what is not a number."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from None
    if len(lines) < 2 or len(lines[0]) < 2:
        raise ValueError(f"{path} has no rows or no columns")
    columns, rows = [name.strip() for name in lines[0][1:]], [line[0].strip() for line in lines[1:]]
    for names, kind in ((columns, "column"), (rows, "row")):
        if twice := next((name for name in names if names.count(name) > 1), None):
            why = "; were leading zeros lost?" if twice.isdigit() else ""
            raise ValueError(f"{path} has the {kind} {twice!r} twice{why}")
    values = []
    for name, line in zip(rows, lines[1:], strict=True):
        if len(line) != len(columns) + 1:
            raise ValueError(f"{path}, row {name!r}: {len(line) - 1} values for {len(columns)} columns")
        values.append([_number(text, f"{path}, row {name!r}") for text in line[1:]])
    return Table(rows, columns, values)


def _number(text: str, where: str) -> float:
    if not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {text!r} is not a number") from None
    if math.isinf(value):
        raise ValueError(f"{where}: {text!r} is not finite; leave the cell empty if the value is not known")
    return value


def _less(outcome: Table, baseline: Table) -> Table:
    """The outcome less the baseline's row of the same name, or its only row."""
    of_row = dict(zip(baseline.rows, baseline.values, strict=True))
    if len(of_row) == 1:
        of_row = dict.fromkeys(outcome.rows, baseline.values[0])
    shared = [name for name in outcome.columns if name in baseline.columns]
    if not shared or not set(outcome.rows) & of_row.keys():
        raise ValueError(f"{BASELINE}.csv shares no row and column with {OUTCOME}.csv")
    mine, theirs = ([table.columns.index(name) for name in shared] for table in (outcome, baseline))
    missing = [math.nan] * len(baseline.columns)
    values = []
    for name, row in zip(outcome.rows, outcome.values, strict=True):
        base = of_row.get(name, missing)
        values.append([row[i] - base[j] for i, j in zip(mine, theirs, strict=True)])
    return Table(outcome.rows, shared, values)


def aligned(a: Table, b: Table) -> tuple[list[str], list[str], list[list[float]], list[list[float]]]:
    """Common rows and columns of two tables, in the order of the first, and the values of both there."""
    rows, columns = (
        [name for name in mine if name in set(theirs)] for mine, theirs in ((a.rows, b.rows), (a.columns, b.columns))
    )
    return rows, columns, _picked(a, rows, columns), _picked(b, rows, columns)


def _picked(table: Table, rows: list[str], columns: list[str]) -> list[list[float]]:
    place = {name: i for i, name in enumerate(table.rows)}
    order = [table.columns.index(name) for name in columns]
    return [[table.values[place[name]][i] for i in order] for name in rows]
