"""Rows as a table on a terminal."""

from collections.abc import Mapping, Sequence


def format_table(rows: Sequence[Mapping]) -> str:
    """Rows as aligned columns, numbers to the right; floats with three decimals, or digits where these would be 0."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    padded = zip(*(_padded([column, *(row.get(column, "") for row in rows)]) for column in columns), strict=True)
    return "".join("  ".join(line).rstrip() + "\n" for line in padded)


def _padded(column: list) -> list[str]:
    """Texts of one width: words to the left, numbers and intervals to the right."""
    texts = [cell_text(value) for value in column]
    width = max(map(len, texts))
    words = all(isinstance(value, str) for value in column)
    return [text.ljust(width) if words else text.rjust(width) for text in texts]


def cell_text(value) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"
