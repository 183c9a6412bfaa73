"""Rows as a table: on a terminal, as CSV, as LaTeX."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from mechsub import files
from mechsub.lab.findings import PValue
from mechsub.lazy import pd

GAP = "  "
FEWEST = 24  # characters of a column of words that is broken into lines


def format_table(rows: Sequence[Mapping], width: int | None = None) -> str:
    """Rows as aligned columns, numbers to the right; floats with three decimals, or digits where these would be 0.

    Where lines are longer than `width`: first, columns with one value in all rows are dropped; then the column with the
    longest words is broken into lines of at least 24 characters; then the last columns are dropped. A last line names
    the dropped columns.
    """
    if not rows:
        return ""
    rows = [{name: str(value) if isinstance(value, PValue) else value for name, value in row.items()} for row in rows]
    names = list(dict.fromkeys(key for row in rows for key in row))
    if width is None or _wide(rows, names, {}) <= width:
        return _joined(rows, names, {})
    shown = [name for name in names if not _says_the_same(rows, name)] or names
    broken = _broken(rows, shown, width)
    while len(shown) > 1 and _wide(rows, shown, broken) > width:
        shown.pop()
    broken = {name: size for name, size in broken.items() if name in shown}
    left_out = ", ".join(name for name in names if name not in shown)
    more = f"not shown: {left_out} (--wide shows all, --csv FILE writes them)\n" if left_out else ""
    return _joined(rows, shown, broken) + more


def _says_the_same(rows: Sequence[Mapping], name: str) -> bool:
    first = rows[0].get(name)
    return len(rows) > 1 and isinstance(first, str) and all(row.get(name) == first for row in rows)


def _wide(rows: Sequence[Mapping], names: Sequence[str], broken: Mapping[str, int]) -> int:
    return max(map(len, _joined(rows, names, broken).splitlines()), default=0)


def _broken(rows: Sequence[Mapping], names: Sequence[str], width: int) -> dict[str, int]:
    """The column of the longest words, and the width it must have for the others to fit; at least FEWEST."""
    lengths = {
        name: max(len(str(row.get(name, ""))) for row in rows)
        for name in names
        if all(isinstance(row.get(name, ""), str) for row in rows)
    }
    longest = max(lengths, key=lengths.__getitem__, default="")
    too_wide = _wide(rows, names, {}) - width
    if too_wide <= 0 or not longest or lengths[longest] <= FEWEST:
        return {}
    return {longest: max(FEWEST, lengths[longest] - too_wide)}


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
    """Texts of one width: words to the left, numbers and intervals to the right."""
    texts = [cell_text(value) for value in column]
    width = max(map(len, texts))
    words = all(isinstance(value, str) for value in column)
    return [text.ljust(width) if words else text.rjust(width) for text in texts]


def cell_text(value) -> str:
    if not isinstance(value, float) or isinstance(value, PValue):
        return str(value)
    return f"{value:.3g}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def write_table(rows: Sequence[Mapping], path: Path, kind: str) -> None:
    """The rows as a file, "csv" or "latex"; CSV has an interval's mean and, in columns of their own, its limits."""
    names = list(dict.fromkeys(key for row in rows for key in row))
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
