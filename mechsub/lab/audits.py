"""What the audits of the two topics share: how checks become verdicts on claims, their table and their figure."""

from collections.abc import Mapping, Sequence

from mechsub.lab import study


class Missing(Exception):
    """A cell that is not stored, or stale; the text is the command that makes it."""


def words(flags: Mapping) -> str:
    """As a command line has them."""
    texts = ((key, value if isinstance(value, tuple) else (value,)) for key, value in flags.items())
    return "".join(f" --{key.replace('_', '-')} {' '.join(map(str, values))}" for key, values in texts)


def outcome(row: Mapping) -> str:
    """ "yes", "no", "open" or "missing", of one check."""
    if "missing" in row:
        return "missing"
    if "p" in row:  # a test without an interval
        return _tested(row)
    # A bound that was measured has an interval too: the two must be apart.
    least, most = row.get("bound_low", row["bound"]), row.get("bound_high", row["bound"])
    below, above = row["high"] < least, row["low"] > most
    if row["expected"] in ("above", "below"):
        yes, no = (above, below) if row["expected"] == "above" else (below, above)
    else:
        yes = most - row["margin"] <= row["low"] and row["high"] <= least + row["margin"]
        no = row["high"] < least - row["margin"] or row["low"] > most + row["margin"]
    return "yes" if yes else "no" if no else "open"


def _tested(row: Mapping) -> str:
    if row["p"] >= 0.05 or (row["expected"] == "near" and abs(row["mean"] - row["bound"]) <= row["margin"]):
        return "open"
    side = "above" if row["mean"] > row["bound"] else "below"
    return "yes" if row["expected"] == side else "no"


def verdict(rows: list[Mapping]) -> str:
    """Of all checks of one claim."""
    found = [outcome(row) for row in rows]
    measured = [word for word in found if word != "missing"]
    if not measured:
        return "not measured yet"
    if len(set(measured)) == 1:
        word = {"yes": "confirmed", "no": "refuted", "open": "open"}[measured[0]]
    else:
        word = "partly" if {"yes", "no"} <= set(measured) else "open" if "yes" in measured else "not supported"
    less = f" (by {len(measured)} of {len(found)} checks)" if len(measured) < len(found) else ""
    return f"{word}{less}"


def claims(records: Sequence[Mapping]) -> dict[int | str, list[Mapping]]:
    found: dict[int | str, list[Mapping]] = {}
    for row in records:
        found.setdefault(row["claim_row"], []).append(row)
    return found


def table(records: list[dict], Config, unit: str) -> list[dict]:
    rows = []
    for label, cell in study.cells(records, Config):
        for number, checks in claims(cell).items():
            told = {"claim": checks[0]["claim"], "verdict": verdict(checks), "published": checks[0]["published"]}
            rows += [_row(label, number, told, unit), *(_row(label, number, _shown(row, unit), unit) for row in checks)]
    return rows


def _row(label: str, number: int | str, told: Mapping, unit: str) -> dict:
    columns = ("claim", "verdict", "expected", "value", "null", unit, "cells", "published")
    return {"cell": label, "row": number, **{column: told.get(column, "") for column in columns}}


def _shown(row: Mapping, unit: str) -> dict:
    from mechsub import stats

    told = {"claim": f"  {row['check']}", "verdict": outcome(row), "expected": f"{row['expected']} {row['bound']:.3g}"}
    if "missing" in row:
        return told | {"cells": f"not measured yet: {row['missing']}"}
    known = row["low"] < row["high"]  # a ratio of widths has no interval
    value = stats.Interval(row["mean"], row["low"], row["high"], row["n"]) if known else f"{row['mean']:.3f}"
    null = row.get("null", "")
    null = null if isinstance(null, str) else str(stats.Interval(*null, row["n"]))  # type: ignore[call-arg]
    null += f" (p = {row['p']:.3g})" if "p" in row else ""
    return told | {"value": value, "null": null, unit: row["n"] or "", "cells": "; ".join(row["cells"])}


def plot(records: list[dict], Config, title: str, unit: str):
    import plotly.graph_objects as go

    from mechsub.lab.figures import kinds as figures

    label, cell = study.cells(records, Config)[0]
    measured = [row for row in cell if "missing" not in row]
    colors = {"yes": figures.OKABE_ITO[2], "no": figures.OKABE_ITO[3], "open": figures.GREY}
    traces = []
    for word, color in colors.items():
        rows = [row for row in measured if outcome(row) == word]
        bars = figures.error_bar((row["mean"], row["low"], row["high"]) for row in rows)
        traces.append(
            go.Scatter(
                x=[row["mean"] - row["bound"] for row in rows],
                y=[f"{row['claim_row']}: {row['check']}" for row in rows],
                error_x=bars, mode="markers", marker={"color": color, "size": 10}, name=word,
            )
        )  # fmt: skip
    said = "; ".join(f"{number} {verdict(checks)}" for number, checks in claims(cell).items())
    return figures.grid(
        [figures.Panel(traces, {"title_text": "value less its bound"}, {"type": "category", "autorange": "reversed"})],
        [f"Checks{'' if label == 'all' else f' ({label})'}"],
        title=title,
        caption=f"95% intervals over {unit}. Verdicts by claim: {said}.",
    )
