"""Rows as a table: on a terminal, as CSV, as LaTeX."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from mechsub import files
from mechsub.lab.findings import PValue
from mechsub.lazy import pd

GAP = "  "
FEWEST = 24  # characters of a column of words that is broken into lines
MOST = 60  # rows of a table with a width: who reads more, reads a file
SMALL = 0.0005  # what three decimals do not show


def format_table(rows: Sequence[Mapping], width: int | None = None) -> str:
    """Rows as aligned columns, numbers to the right; a column's numbers have three decimals, or all have digits where
    three decimals would show none of them.

    With a `width`, at most 60 rows are shown, verdicts first and then in the study's own order. Where lines are longer
    than it, in this order: columns with one value in all rows are dropped; the cell is said before what is measured, in
    one column; the columns with the longest words are broken into lines of at least 24 characters; columns are dropped
    from the right, a value, its null, p and verdict after all others; rows that say nothing then are left out. A last
    line names what is dropped.
    """
    if not rows:
        return ""
    rows = [{name: _tested(name, value) for name, value in row.items()} for row in rows]
    names = _names(rows)
    if width is None:
        return _joined(rows, names, {})
    some = _first(rows)
    told = [f"{len(rows) - len(some)} of {len(rows)} rows"] if len(some) < len(rows) else []
    return _fitted(some, names, width, told)


def _first(rows: Sequence[Mapping]) -> Sequence[Mapping]:
    """At most MOST rows in their order: those with a verdict, and of the others those that come first."""
    places = sorted(range(len(rows)), key=lambda i: (rows[i].get("verdict", "") == "", i))[:MOST]
    return rows if len(rows) <= MOST else [rows[i] for i in sorted(places)]


def _names(rows: Sequence[Mapping]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _fitted(rows: Sequence[Mapping], names: Sequence[str], width: int, told: Sequence[str]) -> str:
    """The rows within this width; `told` is what else is not shown."""
    if _wide(rows, names, {}) <= width:
        return _joined(rows, names, {}) + _left_out(told, width)
    shown = [name for name in names if not _says_the_same(rows, name)] or list(names)
    if _wide(rows, shown, {}) > width:
        rows, shown = _with_cells(rows, shown)
    broken = _broken(rows, shown, width)
    while len(shown) > 1 and _wide(rows, shown, broken) > width:
        shown = _fewer(shown)
        broken = _broken(rows, shown, width)
    told = [*told, *(n for n in names if n not in shown and any(row.get(n, "") != "" for row in rows))]
    return _joined(_telling(rows, shown), shown, broken) + _left_out(told, width)


def _left_out(told: Sequence[str], width: int) -> str:
    more = f"not shown: {', '.join(told)} (--wide shows all, --csv FILE writes them)" if told else ""
    lines = textwrap.wrap(more, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "".join(f"{line}\n" for line in lines)


def _telling(rows: Sequence[Mapping], shown: Sequence[str]) -> Sequence[Mapping]:
    """Rows that say something in the columns that are shown; a verdict that is not shown stands behind the words."""
    first = shown[0]
    if "verdict" not in shown and all(isinstance(row.get(first, ""), str) for row in rows):
        rows = [{**row, first: f"{row[first]}: {row['verdict']}"} if row.get("verdict") else row for row in rows]
    return [row for row in rows if any(row.get(name, "") != "" for name in shown[1:])] or rows


def _tested(name: str, value):
    """A p-value as its text."""
    return str(PValue(value)) if isinstance(value, PValue) or (_is_p(name) and isinstance(value, float)) else value


def _is_p(name: str) -> bool:
    return name == "p" or name.startswith(("p ", "p, "))


def _says_the_same(rows: Sequence[Mapping], name: str) -> bool:
    """Whether a column of words has one value, or a column of p none."""
    first = rows[0].get(name, "")
    words = isinstance(first, str) and (first == "" or not _is_p(name))
    return len(rows) > 1 and words and all(row.get(name, "") == first for row in rows)


def _with_cells(rows: Sequence[Mapping], names: Sequence[str]) -> tuple[list[Mapping], list[str]]:
    """The rows with each cell before the words behind it: most are all cells, or name what has no other words."""
    following = names[names.index("cell") + 1] if "cell" in names[:-1] else ""
    if not following or not all(isinstance(row.get(name, ""), str) for row in rows for name in ("cell", following)):
        return list(rows), list(names)
    together = [
        {**row, following: ": ".join(filter(None, (row["cell"] * (row["cell"] != "all"), row.get(following, ""))))}
        for row in ({"cell": "all", **row} for row in rows)
    ]
    return [{**row, "cell": ""} for row in together], [name for name in names if name != "cell"]


def _fewer(names: Sequence[str]) -> list[str]:
    """The columns without one, and without what tests it."""
    last = next((name for name in reversed(names[1:]) if not _kept(name)), names[-1])
    return [name for name in names if name not in (last, f"p, {last}", f"{last}: null")]


def _kept(name: str) -> bool:
    return name in ("quantity", "arm", "value", "null", "verdict") or _is_p(name)


def _wide(rows: Sequence[Mapping], names: Sequence[str], broken: Mapping[str, int]) -> int:
    return max(map(len, _joined(rows, names, broken).splitlines()), default=0)


def _broken(rows: Sequence[Mapping], names: Sequence[str], width: int) -> dict[str, int]:
    """Columns of words, the longest first, and the width that each must have for all to fit; at least FEWEST."""
    lengths = {
        name: max(len(str(row.get(name, ""))) for row in rows)
        for name in names
        if all(isinstance(row.get(name, ""), str) for row in rows)
    }
    broken: dict[str, int] = {}
    for name, length in sorted(lengths.items(), key=lambda item: -item[1]):
        too_wide = _wide(rows, names, broken) - width
        if too_wide > 0 and length > FEWEST:
            broken[name] = max(FEWEST, length - too_wide)
    return broken


def _joined(rows: Sequence[Mapping], names: Sequence[str], broken: Mapping[str, int]) -> str:
    """Lines of all rows; a row has several lines where a column is broken."""
    parts = [{name: _lines(str(row.get(name, "")), size) for name, size in broken.items()} for row in rows]
    lines: list[dict] = []
    for row, part in zip(rows, parts, strict=True):
        lines.append({**row, **{name: texts[0] for name, texts in part.items()}})
        rest = max((len(texts) for texts in part.values()), default=1)
        lines += [{name: texts[i] for name, texts in part.items() if i < len(texts)} for i in range(1, rest)]
    columns = [_padded([name, *(line.get(name, "") for line in lines)]) for name in names]
    return "".join(GAP.join(texts).rstrip() + "\n" for texts in zip(*columns, strict=True))


def _lines(text: str, size: int) -> list[str]:
    return textwrap.wrap(text, size, subsequent_indent="  ") or [""]


def _padded(column: list) -> list[str]:
    """Texts of one width and one form: words to the left, numbers and intervals to the right."""
    numbers = [abs(value) for value in column if isinstance(value, float) and math.isfinite(value)]
    rounded = max(numbers, default=0.0) >= SMALL
    texts = [_rounded(value) if rounded and isinstance(value, float) else cell_text(value) for value in column]
    width = max(map(len, texts))
    words = all(isinstance(value, str) for value in column)
    return [text.ljust(width) if words else text.rjust(width) for text in texts]


def _rounded(value: float) -> str:
    return f"{0.0 if abs(value) < SMALL else value:.3f}"  # NaN is neither, and stays


def cell_text(value) -> str:
    if not isinstance(value, float) or isinstance(value, PValue):
        return str(value)
    return f"{value:.3g}" if 0 < abs(value) < SMALL else _rounded(value)


def write_table(rows: Sequence[Mapping], path: Path, kind: str) -> None:
    """The rows as a file, "csv" or "latex"; CSV has an interval's mean and, in columns of their own, its limits."""
    names = _names(rows)
    if kind == "latex":
        texts = pd.DataFrame([{name: cell_text(row.get(name, "")) for name in names} for row in rows])
        style = texts.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
        files.write_text(path, style.to_latex(hrules=True))
        return
    intervals = {name for name in names for row in rows if hasattr(row.get(name), "low")}
    parts = [{key: value for name in names for key, value in _parts(name, row, intervals)} for row in rows]
    files.write_text(path, pd.DataFrame(parts).to_csv(index=False))


def _parts(name: str, row: Mapping, intervals: set[str]) -> list[tuple]:
    value = row.get(name, "")
    if name not in intervals:
        return [(name, float(value) if isinstance(value, PValue) else value)]
    mean, low, high = (getattr(value, part, "") for part in ("mean", "low", "high"))
    return [(name, mean if hasattr(value, "mean") else value), (f"{name} low", low), (f"{name} high", high)]
