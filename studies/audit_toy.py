"""The brief's claims about the toy: what was published for each, what mechsub measured, and the verdict.

Every claim (studies/_audit_claims.py, by its number in the audit list) is put as one or more checks, each a sum of
scores in stored cells of other studies, paired by seed, that the claim says is above or below a bound, or near it
(within `--margin`). Nothing is trained here: a check whose cell is missing says so, with the command that makes it.

A check says yes where the whole 95% interval (Student-t over seeds) is where the claim has it, no where it is wholly
elsewhere, else open. A claim is confirmed if all its checks say yes, refuted if all say no, partly so if some say yes
and some no, open otherwise. Beside a check of auxiliary-only students is its null: the same sum of their
cross-initialisation students.

Answer (25 seeds, artifacts/audit_toy/default; rows 8 and 17, whose cells need all arms, are not measured yet).
Refuted: the student's lag is the untrained readout's loss (row 4: that loss less half of the lag is -0.190 [-0.213,
-0.167]); the variance of the noise does not matter (11: -0.146 [-0.171, -0.120] from s.d. 0.25 to 4); 0.772 is the
most a student reaches (15: 0.901 [0.893, 0.909] in the same steps, 0.979 [0.978, 0.979] without a budget). Confirmed:
more classes teach worse, as kappa too (7: -0.462 [-0.513, -0.410] from 2 to 10), real image in the input (9), blur at
equal variance (12) and a balance of frequencies (14), 256 neurons above 64 and 512 (16: 0.081 [0.005, 0.157] and 0.161
[0.103, 0.218]). Partly: hidden layer 2 moves towards the teacher's, its debiased CKA by 0.257 [0.245, 0.269], and is
not forced onto it (3: stitched into the teacher, -0.284 [-0.325, -0.244]); a perturbed start still learns, and at 0.3
of the weights' norm is not at chance yet, 0.216 [0.178, 0.254] (5, 6).
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mechsub import study
from studies import _audit_claims

NULL = "cross_aux"
_OF_NULLS = ("accuracy", "kappa", "debiased_cka", "stitch_into_teacher")  # scores that the null's rows have too


@dataclass(frozen=True)
class Config:
    margin: study.Positive = study.option(0.05, "a difference within this is near")


class Missing(Exception):
    """A cell that is not stored, or stale; the text is the command that makes it."""


def run(cfg: Config) -> Iterator[dict]:
    for claim in _audit_claims.CLAIMS:
        told = {"claim_row": claim.row, "claim": claim.claim, "published": claim.published}
        for check in claim.checks or (None,):
            try:
                yield told | (_checked(check) if check else _pairing())
            except Missing as missing:
                yield told | _asked(check) | {"missing": str(missing)}
    yield {"provenance": {"null": "the same sum of cross-initialisation students", "unit": "seed"}}


def _checked(check: _audit_claims.Check) -> dict:
    from mechsub import stats

    interval = stats.student_t(_sum(check.terms))
    row = _asked(check) | {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    row["cells"] = list(dict.fromkeys(_name(scores) for _, scores in check.terms))
    if all(s.rows.get("arm") in ("aux", "student_aux") and s.value in _OF_NULLS for _, s in check.terms):
        null = stats.student_t(_sum([(a, s._replace(rows={**s.rows, "arm": NULL})) for a, s in check.terms]))
        row["null"] = [null.mean, null.low, null.high]
    return row


def _asked(check: _audit_claims.Check | None) -> dict:
    if check is None:
        text = "squared error less KL: width of the unpaired interval over the paired one"
        return {"check": text, "expected": "near", "bound": 1.0}
    return {"check": check.text, "expected": check.claim, "bound": check.bound}


def _sum(terms) -> list[float]:
    each = [(factor, _scores(scores)) for factor, scores in terms]
    common = sorted(set.intersection(*(set(found) for _, found in each)))
    return [sum(factor * found[member] for factor, found in each) for member in common]


def _scores(wanted: _audit_claims.Scores) -> dict[int, float]:
    """Member -> score, of all stored cells that these flags name; a flag may have several values, as in a sweep.

    A cell that holds every arm serves where one that holds some would.
    """
    module = _module(wanted.study)
    found: dict[int, float] = {}
    for flags in _combinations(wanted.flags) if module else ():
        for row in _rows(module, flags):
            if all(row.get(key) == value for key, value in wanted.rows.items()) and wanted.value in row:
                found[row["member"]] = row[wanted.value]
    if len(found) < 2:
        raise Missing(f"python -m studies.{wanted.study}{_words(wanted.flags)}")
    return found


def _combinations(flags: Mapping) -> Iterator[dict]:
    several = {key: value if isinstance(value, tuple) else (value,) for key, value in flags.items()}
    for values in itertools.product(*several.values()):
        yield dict(zip(several, values, strict=True))


def _rows(module, flags: dict) -> list[dict]:
    from mechsub import store

    for arms in ({}, {"arms": "every"}) if flags.get("arms") == "aux" else ({},):
        cell = study.found_cell(module, module.Config(**(flags | arms)))
        if cell is not None:
            return store.read_records(cell)
    return []


def _words(flags: Mapping) -> str:
    """As a command line has them."""
    texts = ((key, value if isinstance(value, tuple) else (value,)) for key, value in flags.items())
    return "".join(f" --{key.replace('_', '-')} {' '.join(map(str, values))}" for key, values in texts)


def _module(name: str):
    """By its name, so that this study's cell goes by the sums of what it read, and not by all that made it."""
    import importlib
    import importlib.util

    if importlib.util.find_spec(f"studies.{name}") is None:
        return None
    return importlib.import_module(f"studies.{name}")


def _name(scores: _audit_claims.Scores) -> str:
    return f"{scores.study}{_words(scores.flags)}"


def _pairing() -> dict:
    """Width of the unpaired 1.96 s.d. interval of a difference of two arms over that of Student's t, paired by seed."""
    import math
    import statistics

    from mechsub import stats

    a, b = (_scores(_audit_claims._accuracy("student_aux", loss)) for loss in ("mse", "kl"))
    paired = stats.paired_difference([a[i] for i in sorted(a)], [b[i] for i in sorted(a)]).interval
    plain = 2 * 1.96 * math.sqrt(sum(statistics.pvariance(list(x.values())) / len(x) for x in (a, b)))
    ratio = plain / (paired.high - paired.low)
    cells = [_name(_audit_claims._accuracy("student_aux", loss)) for loss in ("mse", "kl")]
    return _asked(None) | {"mean": ratio, "low": ratio, "high": ratio, "n": paired.n, "cells": cells}


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
    rows = []
    for label, cell in study.cells(records, Config):
        for number, checks in _claims(cell).items():
            told = {"claim": checks[0]["claim"], "verdict": verdict(checks), "published": checks[0]["published"]}
            rows += [_row(label, number, told), *(_row(label, number, _shown(row)) for row in checks)]
    return rows


def _row(label: str, number: int, told: Mapping) -> dict:
    columns = ("claim", "verdict", "expected", "value", "null", "seeds", "cells", "published")
    return {"cell": label, "row": number, **{column: told.get(column, "") for column in columns}}


def _shown(row: Mapping) -> dict:
    from mechsub import stats

    told = {"claim": f"  {row['check']}", "verdict": outcome(row), "expected": f"{row['expected']} {row['bound']:g}"}
    if "missing" in row:
        return told | {"cells": f"not measured yet: {row['missing']}"}
    known = row["low"] < row["high"]  # a ratio of widths has no interval
    value = stats.Interval(row["mean"], row["low"], row["high"], row["n"]) if known else f"{row['mean']:.3f}"
    null = str(stats.Interval(*row["null"], row["n"])) if "null" in row else ""  # type: ignore[call-arg]
    return told | {"value": value, "null": null, "seeds": row["n"], "cells": "; ".join(row["cells"])}


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
