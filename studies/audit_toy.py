"""The brief's claims about the toy: what was published for each, what mechsub measured, and the verdict.

Every claim (studies/_audit_claims.py, by its number in the audit list) is put as one or more checks, each a sum of
scores in stored cells of other studies, paired by seed, that the claim says is above or below a bound, or near it
(within `--margin`). Nothing is trained here: a check whose cell is missing says so, with the command that makes it.

A check says yes where the whole 95% interval (Student-t over seeds) is where the claim has it, no where it is wholly
elsewhere, else open. A claim is confirmed if all its checks say yes, refuted if all say no, partly so if some say yes
and some no, open otherwise. Beside a check of auxiliary-only students is its null: the same sum of their
cross-initialisation students.

Answer: none yet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mechsub import study
from studies import _audit_claims

NULL = "cross_aux"


@dataclass(frozen=True)
class Config:
    margin: study.Positive = study.option(0.05, "a difference within this is near")


class Missing(Exception):
    """A cell that is not stored, or stale; the text is the command that makes it."""


def run(cfg: Config) -> Iterator[dict]:
    for claim in _audit_claims.CLAIMS:
        told = {"claim_row": claim.row, "claim": claim.claim, "published": claim.published}
        for check in claim.checks:
            yield told | _checked(check)
        if not claim.checks:
            yield told | _pairing()
    yield {"provenance": {"null": "the same sum of cross-initialisation students", "unit": "seed"}}


def _checked(check: _audit_claims.Check) -> dict:
    from mechsub import stats

    asked = {"check": check.text, "expected": check.claim, "bound": check.bound}
    try:
        found = _sum(check.terms)
    except Missing as missing:
        return asked | {"missing": str(missing)}
    interval = stats.student_t(found)
    row = asked | {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    row["cells"] = list(dict.fromkeys(_name(scores) for _, scores in check.terms))
    if all(scores.rows.get("arm") in ("aux", "student_aux") for _, scores in check.terms):
        null = stats.student_t(_sum([(a, s._replace(rows={**s.rows, "arm": NULL})) for a, s in check.terms]))
        row["null"] = [null.mean, null.low, null.high]
    return row


def _sum(terms) -> list[float]:
    each = [(factor, _scores(scores)) for factor, scores in terms]
    common = sorted(set.intersection(*(set(found) for _, found in each)))
    return [sum(factor * found[member] for factor, found in each) for member in common]


def _scores(wanted: _audit_claims.Scores) -> dict[int, float]:
    """Member -> score. A cell that holds every arm serves where one that holds some would."""
    from mechsub import store

    module, tried = _module(wanted.study), [wanted.flags]
    if wanted.flags.get("arms") == "aux":
        tried.append({**wanted.flags, "arms": "every"})
    for flags in tried:
        cell = study.found_cell(module, module.Config(**flags)) if module else None
        if cell is not None:
            rows = store.read_records(cell)
            chosen = [row for row in rows if all(row.get(key) == value for key, value in wanted.rows.items())]
            if len(chosen) > 1 and all(wanted.value in row for row in chosen):
                return {row["member"]: row[wanted.value] for row in chosen}
    flags = "".join(f" --{key.replace('_', '-')} {value}" for key, value in wanted.flags.items())
    raise Missing(f"python -m studies.{wanted.study}{flags}")


def _module(name: str):
    """By its name, so that this study's cell goes by the sums of what it read, and not by all that made it."""
    import importlib
    import importlib.util

    if importlib.util.find_spec(f"studies.{name}") is None:
        return None
    return importlib.import_module(f"studies.{name}")


def _name(scores: _audit_claims.Scores) -> str:
    return f"{scores.study} {' '.join(f'{key}={value}' for key, value in scores.flags.items())}".strip()


def _pairing() -> dict:
    """Width of the unpaired 1.96 s.d. interval of a difference of two arms over that of Student's t, paired by seed."""
    import math
    import statistics

    from mechsub import stats

    a, b = (_scores(_audit_claims._accuracy("student_aux", loss)) for loss in ("mse", "kl"))
    paired = stats.paired_difference([a[i] for i in sorted(a)], [b[i] for i in sorted(a)]).interval
    plain = 2 * 1.96 * math.sqrt(sum(statistics.pvariance(list(x.values())) / len(x) for x in (a, b)))
    ratio = plain / (paired.high - paired.low)
    return {
        "check": "squared error less KL: width of the unpaired interval over the paired one",
        "expected": "near", "bound": 1.0, "mean": ratio, "low": ratio, "high": ratio, "n": paired.n,
        "cells": ["subliminal_accuracy loss=mse", "subliminal_accuracy loss=kl"],
    }  # fmt: skip


def outcome(row: Mapping) -> str:
    """ "yes", "no", "open" or "missing", of one check."""
    if "missing" in row:
        return "missing"
    ends = {"above": (row["bound"], float("inf")), "below": (-float("inf"), row["bound"])}
    low, high = ends.get(row["expected"], (row["bound"] - row["margin"], row["bound"] + row["margin"]))
    if low <= row["low"] and row["high"] <= high:
        return "yes"
    return "no" if row["high"] < low or row["low"] > high else "open"


def verdict(rows: list[Mapping]) -> str:
    """Of all checks of one claim."""
    found = [outcome(row) for row in rows]
    measured = [word for word in found if word != "missing"]
    if not measured:
        return "not measured yet"
    if len(set(measured)) == 1:
        word = {"yes": "confirmed", "no": "refuted", "open": "open"}[measured[0]]
    else:
        word = "partly" if {"yes", "no"} <= set(measured) else "open"
    less = f" (by {len(measured)} of {len(found)} checks)" if len(measured) < len(found) else ""
    return f"{word}{less}"


def _claims(records: list[Mapping]) -> dict[int, list[Mapping]]:
    claims: dict[int, list[Mapping]] = {}
    for row in records:
        claims.setdefault(row["claim_row"], []).append(row)
    return claims


def table(records: list[dict]) -> list[dict]:
    from mechsub import stats

    rows = []
    for label, cell in study.cells(records, Config):
        for number, checks in _claims(cell).items():
            told = {"cell": label, "row": number, "claim, and its checks": checks[0]["claim"]}
            rows.append(told | {"verdict": verdict(checks), "published": checks[0]["published"]})
            for row in checks:
                rows.append({"cell": label, "row": number, "claim, and its checks": f"  {row['check']}"} | _shown(row))
                if "missing" not in row:
                    value = stats.Interval(row["mean"], row["low"], row["high"], row["n"])
                    null = stats.Interval(*row["null"], row["n"]) if "null" in row else ""
                    rows[-1] |= {"value": value, "null": null, "seeds": row["n"]}
    return rows


def _shown(row: Mapping) -> dict[str, str]:
    return {
        "verdict": outcome(row),
        "expected": f"{row['expected']} {row['bound']:g}",
        "cells": f"not measured yet: {row['missing']}" if "missing" in row else "; ".join(row["cells"]),
    }


def plot(records: list[dict]):
    import plotly.graph_objects as go

    from mechsub import plot as figures

    label, cell = study.cells(records, Config)[0]
    measured = [row for row in cell if "missing" not in row]
    colors = {"yes": figures.OKABE_ITO[2], "no": figures.OKABE_ITO[3], "open": figures.GREY}
    traces = []
    for word, color in colors.items():
        rows = [row for row in measured if outcome(row) == word]
        bars = {
            "type": "data", "symmetric": False, "array": [row["high"] - row["mean"] for row in rows],
            "arrayminus": [row["mean"] - row["low"] for row in rows],
        }  # fmt: skip
        traces.append(
            go.Scatter(
                x=[row["mean"] - row["bound"] for row in rows],
                y=[f"{row['claim_row']}: {row['check']}" for row in rows],
                error_x=bars, mode="markers", marker={"color": color, "size": 10}, name=word,
            )
        )  # fmt: skip
    words = "; ".join(f"{number} {verdict(checks)}" for number, checks in _claims(cell).items())
    return figures.grid(
        [figures.Panel(traces, {"title_text": "value less its bound"}, {"type": "category", "autorange": "reversed"})],
        [f"Checks{'' if label == 'all' else f' ({label})'}"],
        title="The brief's claims about the toy",
        caption=f"95% intervals over seeds. Verdicts by claim: {words}.",
    )


if __name__ == "__main__":
    study.main(Config, run, plot, table)
