"""Outcome tables that others release as CSV: one row a number, one column an animal, a file a quantity."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from mechsub.lazy import np
from studies.association import names as table_names
from studies.association import text as table_text

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
    difference_in_prompting.csv; base_prompting.csv if there is one; every other file is a method's scores).

    Raises for a table of outcomes that are no logarithms, and for tables whose names match only after a guess."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of outcome tables")
    files = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    if OUTCOME in files:
        outcome = _log_probs(files[OUTCOME])
        if based := BASELINE in files:
            outcome = _less(outcome, _log_probs(files[BASELINE]), files)
        name = OUTCOME
    elif RATIO in files:
        outcome, based, name = _log_ratios(files[RATIO]), True, RATIO
    else:
        raise ValueError(f"{folder} holds neither {OUTCOME}.csv nor {RATIO}.csv: there is no outcome to explain")
    scores = {name: read_table(path) for name, path in files.items() if name not in _NOT_SCORES}
    if not scores:
        raise ValueError(f"{folder} holds an outcome but no table of scores, such as logit.csv or unembedding.csv")
    if sum(not any(map(math.isnan, row)) for row in outcome.values) < 2:
        raise ValueError(f"{files[name]} has fewer than 2 rows without an empty cell; its variance cannot be shared")
    for method, table in scores.items():
        _check_match(files[name], outcome, files[method], table)
    return Outcomes(outcome, based, scores)


def _check_match(path: Path, table: Table, other_path: Path, other: Table) -> None:
    table_names.check_match(str(path), table.rows, str(other_path), other.rows, "row")
    table_names.check_match(str(path), table.columns, str(other_path), other.columns, "column")


def _log_probs(path: Path) -> Table:
    """A table of log P: natural logarithms, none above 0 (but for rounding)."""
    table = read_table(path)
    for name, row in zip(table.rows, table.values, strict=True):
        for column, value in zip(table.columns, row, strict=True):
            if value > 1e-4:
                raise ValueError(
                    f"{path}, row {name!r}, column {column!r}: {value:g} is above 0 and no log-probability; "
                    "give natural logarithms, log(P)"
                )
    return table


def _log_ratios(path: Path) -> Table:
    """A table of log P - log P of the baseline. Ratios themselves are never below 0."""
    table = read_table(path)
    values = [value for row in table.values for value in row if not math.isnan(value)]
    if len(values) >= 20 and min(values) >= 0:
        raise ValueError(f"{path} has no value below 0, as ratios have none; give their natural logarithms")
    return table


def read_table(path: Path) -> Table:
    """A CSV whose first column names the rows. Raises, naming the place, for names that occur twice or are no names,
    for what is not a number, and for rows and columns that are computed from the others."""
    header, *lines = table_text.cells(path)
    columns, rows = header[1:], [line[0] for line in lines]
    for names, kind in ((columns, "column"), (rows, "row")):
        if twice := next((name for name, count in Counter(names).items() if count > 1 and name), None):
            why = "; were leading zeros lost?" if twice.isdigit() else ""
            raise ValueError(f"{path} has the {kind} {twice!r} twice{why}")
    table_names.check_names(str(path), rows, columns)
    _check_counter(path, rows, columns, lines)
    values = [
        [
            table_text.number(text, f"{path}, row {line[0]!r}, column {column!r}")
            for column, text in zip(columns, line[1:], strict=True)
        ]
        for line in lines
    ]
    by_column = [list(column) for column in zip(*values, strict=True)]
    for column, numbers in zip(columns, by_column, strict=True):
        if all(map(math.isnan, numbers)):
            raise ValueError(f"{path}: the column {column!r} holds no number; fill it, or drop it")
    _check_summaries(path, "column", columns, values)
    _check_summaries(path, "row", rows, by_column)
    return Table(rows, columns, values)


def _check_counter(path: Path, rows: list[str], columns: list[str], lines: list[list[str]]) -> None:
    """Raise where rows are counted, and the first column holds what names them."""
    counted = any(rows == [str(i + start) for i in range(len(rows))] for start in (0, 1))
    first = [line[1] for line in lines]
    others = [text for line in lines for text in line[2:]]
    names = len(set(first)) == len(first) > 1 and all(text.isdecimal() for text in first)
    if counted and names and others and not all(text.isdecimal() for text in others):
        raise ValueError(
            f"{path} counts its rows, and its column {columns[0]!r} holds whole numbers that all differ, as names do; "
            "drop the counter (pandas: index=False)"
        )


def _check_summaries(path: Path, kind: str, names: list[str], values: list[list[float]]) -> None:
    """Raise for a name whose values are the mean, sum, median or extreme of the others'; values are [other, name]."""
    if len(names) < 3:
        return
    table = np.array(values)
    table = table[~np.isnan(table).any(1)]
    total, whole = table.sum(1, keepdims=True), np.ptp(table, axis=1, keepdims=True)
    near = [(total - table) / (len(names) - 1), total - table, np.median(table, axis=1, keepdims=True)]
    candidates = [(np.abs(table - value) <= 1e-2 * whole).all(0) for value in near]
    for place in np.flatnonzero(np.any(candidates, axis=0)):
        name, own, others = names[place], table[:, place], np.delete(table, place, 1)
        spread = np.ptp(others, axis=1)
        vary = spread > 0
        # A table rounded to a few digits has a rounded mean, too; few values must agree more closely.
        size = (1e-2 if vary.sum() >= 20 else 1e-6) * spread[vary]
        for of in (np.mean, np.sum, np.median):
            if vary.sum() >= 3 and (np.abs(of(others[vary], axis=1) - own[vary]) <= size).all():
                raise ValueError(f"{path}: the {kind} {name!r} is the {of.__name__} of the others; drop it")


def _less(outcome: Table, baseline: Table, files: dict[str, Path]) -> Table:
    """The outcome less the baseline's row of the same name, or its only row."""
    of_row = dict(zip(baseline.rows, baseline.values, strict=True))
    if len(of_row) == 1:
        of_row = dict.fromkeys(outcome.rows, baseline.values[0])
        baseline = Table(outcome.rows, baseline.columns, list(of_row.values()))
    _check_match(files[OUTCOME], outcome, files[BASELINE], baseline)
    shared = [name for name in outcome.columns if name in baseline.columns]
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
