"""Names of rows and columns of released tables: those that are no names, and those that match only after a guess."""

import re
from collections.abc import Sequence

_SUMMARIES = {"mean", "average", "avg", "median", "sum", "total", "std", "sd", "var", "min", "max", "count", "all"}
_PANDAS = re.compile(r"Unnamed: \d+(_level_\d+)?(\.\d+)?|level_\d+|index")


def check_names(where: str, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Raise for what pandas and Excel leave among the names of a table, and for one that is on its side."""
    for column in columns:
        if _PANDAS.fullmatch(column):
            raise ValueError(
                f"{where} has the column {column!r}, an index of pandas and no animal; "
                "save it again with index=False, or read it with index_col=0"
            )
        base, dot, count = column.rpartition(".")
        if dot and count.isdigit() and base in columns:
            raise ValueError(f"{where} has the columns {base!r} and {column!r}: pandas renames a repeated one; drop it")
    for kind, names in (("column", columns), ("row", rows)):
        for place, name in enumerate(names, 1):
            if not name:
                raise ValueError(f"{where}: {kind} {place} has no name; name it, or drop it")
            if name.casefold() in _SUMMARIES:
                raise ValueError(f"{where} has the {kind} {name!r}, a summary of the others; drop it")
            if name.startswith("#"):
                raise ValueError(f"{where} has the {kind} {name!r}, a comment; remove it")
    if len(rows) > 1 and _mostly_numbers(columns) and not _mostly_numbers(rows):
        raise ValueError(f"{where} has numbers as columns, {columns[0]!r}, and {rows[0]!r} as a row; transpose it")
    if decimal := next((name for name in rows if re.fullmatch(r"[+-]?\d+[.,]\d+|\d+[eE][+-]?\d+", name)), None):
        raise ValueError(f"{where} has the row {decimal!r}: names were read as numbers; read them as texts (str)")
    if _mostly_numbers(rows) and (odd := next((name for name in rows if not name.isdecimal()), None)):
        raise ValueError(f"{where} has the row {odd!r} among numbers; drop it, or give its name as a number")


def check_match(a: str, names_a: Sequence[str], b: str, names_b: Sequence[str], kind: str) -> None:
    """Raise where a name of one table is one of the other but for its leading zeros, its case or its spaces."""
    for (here, mine), (there, theirs) in (((a, names_a), (b, names_b)), ((b, names_b), (a, names_a))):
        own = set(mine)
        written = {_loose(name): name for name in mine}
        for name in theirs:
            near = written.get(_loose(name), name)
            short = name.lstrip("0") or "0"
            if name not in own and name.isdecimal() and short != name and short in own:
                raise ValueError(
                    f"{here} has the {kind} {short!r} and not {name!r}, which {there} has: leading zeros were lost, or "
                    f"the two hold other numbers; write {here} anew with names as texts, or drop {name!r} from {there}"
                )
            if name not in own and near != name and not name.isdecimal():
                raise ValueError(f"{here} has the {kind} {near!r} and {there} {name!r}: write both alike")
    if not set(names_a) & set(names_b):
        raise ValueError(f"{a} and {b} have no {kind} in common: {names_a[0]!r}, ... and {names_b[0]!r}, ...")


def _loose(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _mostly_numbers(names: Sequence[str]) -> bool:
    return 2 * sum(name.isdecimal() for name in names) > len(names)
