"""Shared by the audits of both topics: from checks to verdicts on claims, with their table and figure."""

from collections.abc import Iterable, Mapping, Sequence

from mechsub import stats
from mechsub.lab import study, verdicts
from mechsub.lab.findings import Finding
from mechsub.lazy import go, scipy_special

HOLM = "p, Holm over checks"


class Missing(Exception):
    """A cell is not stored, or is stale; the text is the command that makes it."""


def words(flags: Mapping) -> str:
    """Options as words of a command line."""
    texts = ((key, value if isinstance(value, tuple) else (value,)) for key, value in flags.items())
    return "".join(f" --{key.replace('_', '-')} {' '.join(map(str, values))}" for key, values in texts)


def cell_name(study: str, flags: Mapping) -> str:
    return f"{study}{words(flags)}"


def outcome(row: Mapping) -> str:
    """The outcome of one check: "yes", "no", "open" or "missing"."""
    if "missing" in row:
        return "missing"
    if "apart" in row:
        return "untested"
    value = row["mean"] if "p" in row else _between(row["low"], row["high"])
    bound = row["bound"]
    if "p" not in row:
        bound = _between(row.get("bound_low", bound), row.get("bound_high", bound))
    word, _ = verdicts.side(row["expected"], value, bound, margin=row.get("margin", 0.0), p=row.get("p"))
    return {"hit": "yes", "miss": "no"}.get(word, word)


def p_value(row: Mapping) -> float | None:
    """Two-sided p that the value of a check is its bound: its own, or that of the Student-t interval that decides.

    Of "near", whose bound is a range, p is of the nearer end. None where an interval is of another kind (it is not
    symmetric), of one replicate, or set beside a bound with an interval of its own.
    """
    if "missing" in row or "p" in row:
        return row.get("p")
    half, n = (row["high"] - row["low"]) / 2, row["n"]
    symmetric = abs(row["low"] + row["high"] - 2 * row["mean"]) <= 1e-9 * half
    if n < 2 or half <= 0 or not symmetric or "bound_low" in row:
        return None
    error = half / float(scipy_special.stdtrit(n - 1, 0.975))
    margin = row.get("margin", 0.0) if row["expected"] == "near" else 0.0
    distance = abs(abs(row["mean"] - row["bound"]) - margin)
    return float(2 * scipy_special.stdtr(n - 1, -distance / error))


def adjusted(rows: Sequence[Mapping]) -> list[float | None]:
    """`p_value` of every check, adjusted by Holm for all that are measured; one without a p counts as p = 1."""
    own = [p_value(row) for row in rows]
    measured = [i for i, row in enumerate(rows) if "missing" not in row]
    family = iter(stats.holm([1.0 if (p := own[i]) is None else p for i in measured]) if measured else [])
    found = {i: next(family) for i in measured}
    return [None if p is None else found[i] for i, p in enumerate(own)]


def _between(low: float | int, high: float | int) -> stats.Interval:
    """An interval for the judge, which reads only its limits."""
    return stats.Interval((low + high) / 2, float(low), float(high), 0)


def verdict(rows: list[Mapping]) -> str:
    """The verdict on one claim from all its checks."""
    words = {"yes": "hit", "no": "miss", "missing": "untested"}
    return verdicts.together([words.get(word, word) for word in map(outcome, rows)])


def recentred(rows: Sequence[Mapping]) -> list[Mapping]:
    """The checks of one claim by recentred accuracy, those of other scores as they are; none where no check has it."""
    return [_with_recentred(row) for row in rows] if any("recentred" in row for row in rows) else []


def _with_recentred(row: Mapping) -> Mapping:
    columns = ("mean", "low", "high", "n")
    return {**row, **dict(zip(columns, row["recentred"], strict=True))} if "recentred" in row else row


def claims(records: Sequence[Mapping]) -> dict[int | str, list[Mapping]]:
    found: dict[int | str, list[Mapping]] = {}
    for row in records:
        found.setdefault(row["claim_row"], []).append(row)
    return found


def findings(cell: Sequence[Mapping], unit: str) -> list[Finding]:
    """The verdict on every claim, and the measurement of each of its checks."""
    found = []
    for number, checks in claims(cell).items():
        subject = f"claim_{number}".replace(" ", "_")
        found.append(Finding(f"{subject}/verdict", checks[0]["claim"], verdict(checks)))
        if others := recentred(checks):
            found.append(Finding(f"{subject}/recentred_verdict", checks[0]["claim"], verdict(others)))
        for place, row in enumerate(checks, 1):
            if "missing" not in row:
                value = stats.Interval(row["mean"], row["low"], row["high"], row["n"])
                null = row["bound"] if "p" in row else _null(row, "null")  # what a p tests
                found.append(Finding(f"{subject}.{place}/value", row["check"], value, null, row.get("p"), unit=unit))
            if "recentred" in row:
                value, null = _recentred(row), _null(row, "recentred_null")
                found.append(Finding(f"{subject}.{place}/recentred", row["check"], value, null, unit=unit))
    return found


def table(records: list[dict], Config, unit: str) -> list[dict]:
    rows = []
    for label, cell in study.cells(records, Config):
        family = dict(zip(map(id, cell), adjusted(cell), strict=True))
        for number, checks in claims(cell).items():
            told = {"claim": checks[0]["claim"], "verdict": verdict(checks), "published": checks[0]["published"]}
            if others := recentred(checks):
                told["recentred"] = verdict(others)
            rows.append(_row(label, number, told, unit))
            rows += [_row(label, number, _shown(row, unit, family[id(row)]), unit) for row in checks]
    return rows


def _row(label: str, number: int | str, told: Mapping, unit: str) -> dict:
    columns = ("claim", "verdict", "expected", "value", "null", HOLM, unit, "cells", "published")
    own = {"recentred": told["recentred"]} if "recentred" in told else {}
    return {"cell": label, "row": number, **{column: told.get(column, "") for column in columns}, **own}


def _recentred(row: Mapping) -> stats.Interval:
    mean, low, high, n = row["recentred"]
    return stats.Interval(mean, low, high, n)


def _null(row: Mapping, key: str) -> stats.Interval | None:
    """The same sum of the null's scores; a null that is told in words has no number."""
    null = row.get(key, "")
    return None if isinstance(null, str) else stats.Interval(null[0], null[1], null[2], row["n"])


def _shown(row: Mapping, unit: str, p: float | None) -> dict:
    told: dict = {
        "claim": f"  {row['check']}",
        "verdict": outcome(row),
        "expected": f"{row['expected']} {row['bound']:.3g}",
    }
    if "missing" in row:
        return told | {"cells": f"not measured yet: {row['missing']}"}
    known = row["low"] < row["high"]  # a ratio of widths has no interval
    value = stats.Interval(row["mean"], row["low"], row["high"], row["n"]) if known else f"{row['mean']:.3f}"
    null = str(_null(row, "null") or row.get("null", ""))
    null += f" (p = {row['p']:.3g})" if "p" in row else ""
    if "recentred" in row:
        told["recentred"] = _recentred(row)
        null += f"; recentred {beside}" if (beside := _null(row, "recentred_null")) else ""
    tested = {} if p is None else {HOLM: p}
    return told | tested | {"value": value, "null": null, unit: row["n"] or "", "cells": "; ".join(row["cells"])}


def plot(records: list[dict], Config, title: str, unit: str):
    from mechsub.lab.figures import kinds as figures

    cells = study.cells(records, Config)
    label, cell = cells[0]
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
        caption=f"95% intervals over {unit}. Verdicts by claim: {said}.{_not_shown(cell, len(cells), colors)}",
    )


def _not_shown(rows: Sequence[Mapping], n_cells: int, shown: Iterable[str]) -> str:
    """What the figure leaves out, in words behind the caption."""
    left = [word for word in map(outcome, rows) if word not in shown]
    words = {"missing": "not measured yet", "untested": "untested"}
    counted = ", ".join(f"{left.count(word)} {words.get(word, word)}" for word in dict.fromkeys(left))
    more = f" Checks without a point: {counted}." if left else ""
    return more + (f" This is the first of {n_cells} cells." if n_cells > 1 else "")
