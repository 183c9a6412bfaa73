"""The text of a CSV as cells, however pandas, Excel or a script wrote it: encoding, line ends, separator, decimals."""

import codecs
import csv
import io
import math
import re
from pathlib import Path

_MARKS = {  # longest first: that of UTF-16 begins that of UTF-32
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_SEPARATORS = (",", ";", "\t", "|")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MISSING = {"", "na", "n/a", "#n/a", "nan", "null", "none"}


def cells(path: Path) -> list[list[str]]:
    """Lines of cells without spaces around them, all of one length; decimal commas become points."""
    text = _text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    named = re.fullmatch(r'"?sep=(.)"?,*', lines[0].strip("\r")) if lines else None
    if named:
        text, lines = text.split(lines[0], 1)[1], lines[1:]
    if lines and lines[0].lstrip('"').startswith("#"):
        raise ValueError(f"{path} begins with a comment, {lines[0][:40]!r}; remove such lines")
    separator = named[1] if named else _separator(path, text)
    parsed = _without_last_comma(_parsed(path, text, separator))
    if len(parsed) < 2 or len(parsed[0]) < 2:
        raise ValueError(f"{path} has no rows or no columns")
    for line in parsed[1:]:
        if len(line) != len(parsed[0]):
            raise ValueError(f"{path}, row {line[0]!r}: {len(line) - 1} values for {len(parsed[0]) - 1} columns")
    return _pointed(path, parsed, separator)


def number(text: str, where: str) -> float:
    """The number that a cell holds, NaN where it holds none; raises for what Python alone reads as a number."""
    if text.casefold() in _MISSING:
        return math.nan
    if re.fullmatch(r"[+-]?(inf|infinity)", text, re.IGNORECASE):
        raise ValueError(f"{where}: {text!r} is not finite; leave the cell empty if the value is not known")
    if not _NUMBER.fullmatch(text):
        more = "; give its natural logarithm" if text.endswith("%") else "; write it with digits and a point"
        raise ValueError(f"{where}: {text!r} is not a number{more}")
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{where}: {text!r} is not finite; leave the cell empty if the value is not known")
    return value


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}; save it as CSV in UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{path} cannot be read as CSV: it holds zero bytes; save it as CSV in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parsed(path: Path, text: str, separator: str) -> list[list[str]]:
    try:
        lines = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
        return [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from None


def _separator(path: Path, text: str) -> str:
    """The one that cuts all lines into equally many cells, two at least; else the header's most frequent one."""
    fitting = []
    for separator in _SEPARATORS:
        if separator in text:
            lengths = {len(line) for line in _without_last_comma(_parsed(path, text, separator))}
            fitting += [separator] if len(lengths) == 1 and min(lengths) > 1 else []
    if len(fitting) > 1:
        raise ValueError(f"{path} can be cut at {fitting[0]!r} and at {fitting[1]!r}; save it with commas and points")
    header = text.lstrip("\n").partition("\n")[0]
    return fitting[0] if fitting else max(_SEPARATORS, key=header.count)


def _without_last_comma(lines: list[list[str]]) -> list[list[str]]:
    """Without the empty cell that a separator at every line's end leaves."""
    ends = {len(line) for line in lines[1:]}
    header = len(lines[0]) if lines else 0
    last = len(ends) == 1 and all(not line[-1] for line in lines[1:])
    if last and header > 1 and not lines[0][-1] and ends == {header}:
        return [line[:-1] for line in lines]
    return [lines[0], *(line[:-1] for line in lines[1:])] if last and ends == {header + 1} else lines


def _pointed(path: Path, lines: list[list[str]], separator: str) -> list[list[str]]:
    """Decimal commas as points; raises where a comma may as well stand between thousands."""
    values = [cell for line in lines[1:] for cell in line[1:]]
    commas = [cell for cell in values if "," in cell]
    if not commas:
        return lines
    thousands = all(re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", cell) for cell in commas)
    if separator == "," or thousands or any("." in cell for cell in values) or any(c.count(",") > 1 for c in commas):
        raise ValueError(
            f"{path}: {commas[0]!r} may have a decimal comma, or one between thousands; save it with decimal points"
        )
    return [lines[0], *([line[0], *(cell.replace(",", ".") for cell in line[1:])] for line in lines[1:])]
